"""Models whose classes are prompts have the scores of the library that made the network, and all that others have."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip_networks import NETWORKS, PREPROCESSING, PROMPTS, make_clip, make_open_clip, make_word_tokenizer

import vizlib
from vizlib import ModelError, TargetError
from vizlib.core.text import shorten_label
from vizlib.models.clip import prompts as prompt_lists
from vizlib.models.clip.prompts import check_prompts, read_prompts, read_templates
from vizlib.models.randomised_copy import Level, iterate_randomised_copies, list_levels
from vizlib.text.clip_checks import check_clip

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
WEIGHT = "classifier.weight"  # the features of the prompts
OTHER = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)


def list_values(predictions: list[vizlib.Prediction]) -> list[tuple]:
    """Return predictions as tuples with rounded numbers."""
    return [(row.index, row.label, round(row.probability or 0, 4), round(row.logit, 4)) for row in predictions]


@pytest.fixture(scope="module", params=NETWORKS)
def clip(request) -> vizlib.ClipModel:
    return make_clip(request.param)


@pytest.fixture(scope="module")
def plain() -> vizlib.ClipModel:
    return make_clip("open_clip")


def test_scores_attention_and_gradients_are_those_of_the_network(clip):
    assert [check.name for check in check_clip(clip, PHOTO, PROMPTS) if not check.passed] == []


def test_every_method_that_is_listed_explains_a_prompt(clip):
    model = clip.with_prompts(PROMPTS)
    for name, attribution in vizlib.explain_all(model, PHOTO, PROMPTS[1]).items():
        assert attribution.label == PROMPTS[1]
        assert attribution.heat.isfinite().all()
        if name in ("saliency", "attention-relevance", "patch-similarity"):  # a ReLU may leave nothing of the others
            assert attribution.heat.any(), name
    methods = vizlib.list_methods(model)
    assert "attention-relevance" in methods
    assert vizlib.explain(model, PHOTO).method == "attention-relevance"


def test_no_flag_or_mode_of_the_network_changes(clip):
    module = clip.module
    before = [(name, part.training) for name, part in module.named_modules()]
    clip.with_prompts(PROMPTS).predict(PHOTO)
    vizlib.explain_words(clip.with_prompts(PROMPTS), PHOTO)
    assert [(name, part.training) for name, part in module.named_modules()] == before
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_vocabulary_and_photos_are_ranked_by_the_same_scores(clip):
    model = clip.with_prompts(PROMPTS)
    assert list_values(clip.rank_texts(PHOTO, PROMPTS, top=2)) == list_values(model.predict(PHOTO, top=2))
    matches = clip.rank_photos(PROMPTS[0], [PHOTO, OTHER])
    logits = torch.stack([model.logits(model.tensor(vizlib.open_image(photo)))[0, 0] for photo in (PHOTO, OTHER)])
    expected = logits.sigmoid() if clip.output_kind == "sigmoid" else logits.softmax(0)
    assert [match.index for match in matches] == logits.argsort(descending=True).tolist()
    for match in matches:
        assert match.probability == pytest.approx(expected[match.index].item(), abs=1e-5)
        cosine = (logits[match.index] - clip.bias) / clip.scale
        assert match.cosine == pytest.approx(cosine.item(), abs=1e-5)


def test_templates_are_averaged_as_the_authors_of_clip_do(plain):
    templates = ["a photo of {}", "two {}"]
    module: Any = plain.module
    tokens = make_word_tokenizer()([template.format(PROMPTS[0]) for template in templates])
    expected = F.normalize(F.normalize(module.encode_text(tokens), dim=-1).mean(0), dim=-1)
    model = plain.with_prompts(PROMPTS[:1], templates)
    torch.testing.assert_close(model.module.get_parameter(WEIGHT)[0], expected)
    assert [note.code for note in model.notes] == ["prompts.templates"]
    assert plain.with_templates(templates).with_prompts(["dog"]).prompt_source.templates == tuple(templates)
    assert len(read_templates("openai")) == 80
    assert read_templates("simple")[0] == "itap of a {}."


def test_a_single_prompt_has_a_similarity_and_no_probability(plain):
    model = plain.with_prompts(["a red seven"])
    (row,) = model.predict(PHOTO)
    assert row.probability is None
    assert vizlib.explain(model, PHOTO).label == "a red seven"
    assert make_clip("open_clip, SigLIP").with_prompts(["dog"]).predict(PHOTO)[0].probability is not None


def test_contrast_and_weights_are_linear_in_the_features_of_prompts(plain):
    model = plain.with_prompts(PROMPTS)
    one, other = (vizlib.explain(model, PHOTO, "input-x-gradient", i).heat for i in (0, 1))
    contrast = vizlib.explain(model, PHOTO, "input-x-gradient", 0, 1).heat
    torch.testing.assert_close(contrast, one - other, atol=1e-5, rtol=1e-4)
    weighted = vizlib.explain(model, PHOTO, "input-x-gradient", {PROMPTS[0]: 2.0, PROMPTS[1]: -1.0}).heat
    torch.testing.assert_close(weighted, 2 * one - other, atol=1e-5, rtol=1e-4)


def test_patch_similarity_is_the_score_of_each_patch_less_their_mean(plain):
    model = plain.with_prompts(PROMPTS)
    module: Any = plain.module
    last = model.stages[-1]
    tokens = model.run(PHOTO, [last]).activations[last][0, 1:].detach()
    patches = F.normalize(module.visual.ln_post(tokens) @ module.visual.proj, dim=-1)
    scores = plain.scale * patches @ model.module.get_parameter(WEIGHT)[2]
    attribution = vizlib.explain(model, PHOTO, "patch-similarity", 2)
    torch.testing.assert_close(attribution.heat.flatten(), scores - scores.mean(), atol=1e-5, rtol=1e-5)
    assert attribution.signed
    resnet = vizlib.load("resnet18-imagenette")
    with pytest.raises(vizlib.MethodError, match="the classes of this model are no prompts"):
        vizlib.explain(resnet, PHOTO, "patch-similarity")


def test_network_in_training_mode_is_run_in_evaluation_mode(plain):
    module = make_open_clip(patch_dropout=0.5)
    expected = vizlib.wrap_clip(module, make_word_tokenizer(), PREPROCESSING).with_prompts(PROMPTS).predict(PHOTO)
    module.train()
    model = vizlib.wrap_clip(module, make_word_tokenizer(), PREPROCESSING).with_prompts(PROMPTS)
    assert list_values(model.predict(PHOTO)) == list_values(expected)
    assert vizlib.explain_words(model, PHOTO, 0).values
    assert module.training
    assert module.visual.training


def test_half_precision_network_has_finite_maps():
    module = make_open_clip().to(torch.bfloat16)
    model = vizlib.wrap_clip(module, make_word_tokenizer(), PREPROCESSING).with_prompts(PROMPTS)
    assert vizlib.explain(model, PHOTO).heat.isfinite().all()


def test_features_of_texts_are_kept(plain, monkeypatch):
    clip = make_clip("open_clip")
    clip.encode_texts(["dog", "cat"])
    calls = []
    original = type(clip)._encode_batch
    monkeypatch.setattr(type(clip), "_encode_batch", lambda self, texts: calls.append(texts) or original(self, texts))
    found = clip.encode_texts(["cat", "one", "dog"])
    assert calls == [["one"]]
    torch.testing.assert_close(found[0], clip.encode_texts(["cat"])[0])


def test_prompt_with_commas_is_one_label(plain):
    model = plain.with_prompts(["a dog, a cat", "a dog, one"])
    assert [shorten_label(label) for label in model.labels] == ["a dog, a cat", "a dog, one"]
    assert model.resolve_target("a dog, one", torch.empty(1, 0)) == 1
    copy = pickle.loads(pickle.dumps(model.labels))
    assert shorten_label(copy[0]) == "a dog, a cat"


def test_model_makes_models_of_other_prompts(plain):
    model = plain.with_prompts(PROMPTS)
    assert model.with_prompts(["one", "two"]).labels == ("one", "two")
    with pytest.raises(ModelError, match="fixed list of 10 classes, and reads no prompts"):
        vizlib.load("resnet18-imagenette").with_prompts(["a dog"])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "there are no prompts"),
        ("a dog", "a list of texts, not one text"),
        (["dog", "  "], "prompt 2 is empty"),
        (["dog", 3], "prompt 2 is a int"),
        (["dog", "Dog "], "'Dog' is given twice"),
        (["do\0g"], r"control character U\+0000"),
        (["\ud800"], r"control character U\+D800"),
        (["x" * 10_000], "prompt 1 has 10,000 characters; expected at most 1,000"),
        ([f"dog {i}" for i in range(10_001)], "more than 10,000 prompts"),
    ],
)
def test_bad_prompts_are_one_sentence(prompts, message):
    with pytest.raises(TargetError, match=message):
        check_prompts(prompts)


@pytest.mark.parametrize("prompt", ["<img src=x onerror=alert(1)>", "🐶🐱", "\u202eabc", "שלום עולם", "a\tdog\n"])
def test_unusual_prompts_are_kept_or_refused_by_the_tokenizer(prompt, plain):
    assert check_prompts([prompt]) == (" ".join(prompt.split()),)
    if prompt.split() != ["a", "dog"]:
        with pytest.raises(TargetError, match="is not among them; it knows a, an, and, at, night"):
            plain.with_prompts([prompt])


def test_files_of_prompts_and_templates_are_checked(tmp_path, monkeypatch):
    path = tmp_path / "prompts.txt"
    path.write_text("a dog\n\n  a cat  \n", encoding="utf-8")
    assert read_prompts(path) == ["a dog", "  a cat  "]
    path.write_bytes(b"\xff\xfe\x00dog")
    with pytest.raises(TargetError, match="is not text in UTF-8"):
        read_prompts(path)
    with pytest.raises(TargetError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "absent.txt")
    for wrong in (["no placeholder"], ["{} and {}"], []):
        with pytest.raises(TargetError, match=r"holds \{\} once"):
            read_templates(wrong)
    with pytest.raises(TargetError, match="did you mean openai"):
        read_templates("opena")

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(prompt_lists.importlib, "import_module", refuse)
    with pytest.raises(ModelError, match="pip install 'vizlib\\[clip\\]'"):
        read_templates("openai")


def test_the_features_of_prompts_are_randomised_first_as_the_weights_of_a_classifier_are(plain):
    model = plain.with_prompts(PROMPTS)
    assert list_levels(model)[-1] == Level("classifier", ("classifier.weight",))
    level, copy = next(iterate_randomised_copies(model))
    assert level.name == "classifier"
    assert not torch.equal(copy.module.get_parameter(WEIGHT), model.module.get_parameter(WEIGHT))
    assert copy.module.get_parameter("visual.conv1.weight") is model.module.get_parameter("visual.conv1.weight")
    before = vizlib.explain(model, PHOTO, "attention-relevance", 0).heat
    assert not torch.allclose(vizlib.explain(copy, PHOTO, "attention-relevance", 0).heat, before, rtol=0.1)
