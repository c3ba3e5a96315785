"""The relevance of words equals the formula of the paper in explicit loops, and each word has its own tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from clip_networks import NETWORKS, PROMPTS, make_clip, make_open_clip

import vizlib
from vizlib.models.clip.text_tower import TextTower, encode_open_clip

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def compute_slow_relevance(clip: vizlib.ClipModel, prompt: str) -> np.ndarray:
    """Return the relevance of each token, from the weights of the text tower by linear algebra."""
    module: Any = clip.module
    tokens = clip.text.tokenize([prompt])["input_ids"]
    x = (module.token_embedding(tokens) + module.positional_embedding)[0].requires_grad_()
    length, maps = len(x), []
    for block in module.transformer.resblocks:
        attention = block.attn
        qkv = block.ln_1(x) @ attention.in_proj_weight.T + attention.in_proj_bias
        q, k, v = (part.unflatten(1, (2, -1)).transpose(0, 1) for part in qkv.chunk(3, dim=-1))
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        for i in range(length):
            scores[:, i, i + 1 :] = -torch.inf  # a token sees those before it
        maps.append(scores.softmax(-1))
        x = x + attention.out_proj((maps[-1] @ v).transpose(0, 1).flatten(1))
        x = x + block.mlp(block.ln_2(x))
    end = int(tokens[0].argmax())
    text = F.normalize(module.ln_final(x)[end] @ module.text_projection, dim=0)
    score = clip.scale * text @ clip._encode_photo(PHOTO, clip._get_base([prompt]))
    gradients = torch.autograd.grad(score, maps)
    relevance = np.eye(length)
    for weights, gradient in zip(maps, gradients, strict=True):
        step = np.zeros((length, length))
        for i in range(length):
            for j in range(length):
                step[i, j] = sum(max((weights[h, i, j] * gradient[h, i, j]).item(), 0.0) for h in range(2)) / 2
        relevance = relevance + step @ relevance
    relevance[end, end] -= 1
    return relevance[end]


def test_relevance_equals_the_formula_in_loops():
    clip = make_clip("open_clip")
    for prompt in PROMPTS[:2]:
        expected = compute_slow_relevance(clip, prompt)
        found = vizlib.explain_words(clip.with_prompts(PROMPTS), PHOTO, prompt)
        words = clip.text.locate_words(prompt)
        assert found.words == tuple(place.word for place in words)
        for value, place in zip(found.values, words, strict=True):
            assert value == pytest.approx(expected[place.start : place.stop].sum(), rel=1e-4, abs=1e-7)
        assert found.rest == pytest.approx(expected.sum() - sum(found.values), rel=1e-3, abs=1e-6)
        logits = clip.with_prompts(PROMPTS).run(PHOTO).logits[0]
        assert found.score == pytest.approx(logits[PROMPTS.index(prompt)].item(), abs=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_each_word_a_relevance(name):
    found = vizlib.explain_words(make_clip(name).with_prompts(PROMPTS), PHOTO, PROMPTS[0])
    assert found.words == ("a", "red", "seven")
    assert sum(found.shares) == pytest.approx(1)
    assert max(found.values) > 0
    assert found.to_dict()["words"] == ["a", "red", "seven"]


def test_words_of_a_byte_pair_tokenizer_have_all_their_tokens():
    tokenizer = open_clip.SimpleTokenizer()
    tower = TextTower(make_open_clip(), tokenizer, encode_open_clip)
    text = "a photo of an axolotl, underwater 🐶"
    places = tower.locate_words(text)
    assert [place.word for place in places] == text.split()
    assert places[0].start == 1
    for place, following in pairwise(places):
        assert place.stop == following.start
    ids = tokenizer([text])[0]
    for place in places:
        word = tokenizer.decode(ids[place.start : place.stop].tolist()).replace(" ", "")
        assert word == place.word.replace(" ", "")
    assert int((ids == 0).nonzero()[0]) == places[-1].stop + 1  # the end token is no word's


def test_truncated_prompts_are_noticed():
    tower = TextTower(make_open_clip(), open_clip.SimpleTokenizer(context_length=8), encode_open_clip)
    assert not tower.is_truncated("one two three four five six")
    assert tower.is_truncated("one two three four five six seven")
    assert len(tower.locate_words("one two three four five six seven")) == 6


def test_other_models_are_refused_with_a_sentence():
    with pytest.raises(vizlib.MethodError, match="the classes of resnet18-imagenette are no prompts"):
        vizlib.explain_words(vizlib.load("resnet18-imagenette"), PHOTO)


def test_relevance_with_templates_is_that_of_the_prompt_and_says_so():
    clip = make_clip("open_clip")
    plain = vizlib.explain_words(clip.with_prompts(PROMPTS), PHOTO, 0)
    model = clip.with_prompts(PROMPTS, ["a photo of {}", "two {}"])
    found = vizlib.explain_words(model, PHOTO, 0)
    assert found.values == pytest.approx(plain.values)
    assert [getattr(note, "code", "") for note in found.notes] == [
        "prompts.templates",
        "prompts.words-without-templates",
    ]
