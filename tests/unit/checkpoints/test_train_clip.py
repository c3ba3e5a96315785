"""Training of the CLIP on scenes of digits: scenes and captions, truth, loss, and resumed training."""

from __future__ import annotations

import argparse
import csv

import pytest
import torch

from checkpoints.training import train_clip
from checkpoints.training.digit_scenes import (
    COLORS,
    COMBINATIONS,
    DIGITS,
    HELD_OUT,
    PLACES,
    PROMPTS,
    SIDE,
    DigitImages,
    compose_scenes,
    compute_truth,
    create_tokenizer,
    write_captions,
)
from vizlib import TargetError


@pytest.fixture(scope="module")
def digits(data):
    return DigitImages(data / "digits", "t10k")


def make_scenes(images, count=120, **options):
    return compose_scenes(images, count, torch.Generator().manual_seed(0), **options)


def list_facts(scenes, index: int) -> list[tuple[str, str, str]]:
    """Return colour, digit and place of each digit of a scene."""
    present = scenes.combinations[index].tolist()
    return [(*COMBINATIONS[number], PLACES[place]) for place, number in enumerate(present) if number >= 0]


def read_claims(text: str) -> list[tuple[str | None, str | None, str | None]]:
    """Return colour, digit and place of each claim of a caption, read from its words."""
    claims = []
    for part in text.replace(" and ", ", ").split(", "):
        what, _, place = part.partition(" at the ")
        words = what.split()
        color = next((word for word in words if word in COLORS), None)
        digit = next((word for word in words if word in DIGITS), None)
        claims.append((color, digit, place or None))
    return claims


def test_a_scene_shows_the_digits_it_names_in_their_colours_and_places(digits):
    scenes = make_scenes(digits)
    for index in range(20):
        facts = list_facts(scenes, index)
        assert 2 <= len(facts) <= 4
        assert len({fact[:2] for fact in facts}) == len(facts)
        assert not {fact[:2] for fact in facts} & set(HELD_OUT)
        for color, _, place in facts:
            quadrant = PLACES.index(place)
            mask = scenes.masks[index, quadrant]
            rows, columns = mask.nonzero().unbind(1)
            assert (rows // (SIDE // 2) == quadrant // 2).all()
            assert (columns // (SIDE // 2) == quadrant % 2).all()
            shown = scenes.images[index][:, mask == mask.max()].mean(1)
            wanted = torch.tensor(COLORS[color])
            assert torch.allclose(shown / shown.max(), wanted / wanted.max(), atol=0.05)
    only = make_scenes(digits, 30, combinations=HELD_OUT, digits=(2, 2))
    assert {fact[:2] for index in range(30) for fact in list_facts(only, index)} <= set(HELD_OUT)
    assert (only.combinations >= 0).sum(1).tolist() == [2] * 30


def test_captions_are_true_of_their_scene_and_truth_is_that_of_their_words(digits):
    scenes = make_scenes(digits)
    captions = write_captions(scenes, torch.Generator().manual_seed(1))
    truth = compute_truth(scenes, captions)
    assert truth.diag().all()
    for row in range(0, 120, 5):
        facts = list_facts(scenes, row)
        for column, text in enumerate(captions.texts):
            expected = all(
                any(all(word in (None, own) for word, own in zip(claim, fact, strict=True)) for fact in facts)
                for claim in read_claims(text)
            )
            assert expected == truth[row, column], (facts, text)
    assert {len(read_claims(text)) for text in captions.texts} == {1, 2, 3, 4}
    tokens = create_tokenizer()([*captions.texts, *PROMPTS])
    assert (tokens.max(1).values == create_tokenizer().end).all()


def test_unknown_words_and_long_prompts_are_one_sentence():
    tokenizer = create_tokenizer()
    with pytest.raises(TargetError, match="'church' is not among them; it knows a, an, and"):
        tokenizer("a red church")
    with pytest.raises(TargetError, match="a prompt of 40 words is longer than the 18 that this model reads"):
        tokenizer("red " * 40)


def test_contrastive_loss_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    truth = torch.rand(5, 7, generator=generator) < 0.3
    truth[:, 0] = truth[0] = True
    terms = []
    for values, targets in ((similarity, truth), (similarity.T, truth.T)):
        losses = [
            -sum(torch.log(row[j].exp() / row.exp().sum()) for j in range(len(row)) if true[j]) / true.sum()
            for row, true in zip(values, targets, strict=True)
        ]
        terms.append(torch.stack(losses).mean())
    expected = (terms[0] + terms[1]) / 2
    assert train_clip.compute_contrastive_loss(similarity, truth).item() == pytest.approx(expected.item())


@pytest.mark.slow
def test_a_resumed_training_equals_an_uninterrupted_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train_clip, "STEPS", 2)
    monkeypatch.setattr(train_clip, "BATCH", 8)
    original = train_clip.compute_accuracy
    monkeypatch.setattr(train_clip, "compute_accuracy", lambda *args, **_: original(*args, seed=0, count=20))
    options = {"digits": data / "digits", "epochs": 2, "seed": 3, "bfloat16": False}
    train_clip.train(argparse.Namespace(runs=tmp_path / "whole", **options))
    stopped = argparse.Namespace(runs=tmp_path / "resumed", **options)

    class StopError(Exception):
        pass

    def stop(*args, **_):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(train_clip, "print", lambda row, **_: stop(), raising=False)
        with pytest.raises(StopError):
            train_clip.train(stopped)
    train_clip.train(stopped)
    states = [
        torch.load(tmp_path / name / "digit-clip-3" / "last.pt", weights_only=True) for name in ("whole", "resumed")
    ]
    for key, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][key]), key
    with (tmp_path / "resumed" / "digit-clip-3" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
