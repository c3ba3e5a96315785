"""Targets: complements, weights over classes, functions of the output; structured outputs; notes and records."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizlib
from vizlib import MethodError, ModelError, TargetError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = {"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash", "mean": MEAN, "std": STD}
LABELS = ["llama", "fence", "castle"]


class Net(nn.Module):
    """A convolution and a linear layer; `finish` takes the logits and the features."""

    def __init__(self, finish=lambda logits, features: logits, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding=1), nn.ReLU())
        self.head = nn.Linear(4, outputs)
        self.finish = finish

    def forward(self, images: Tensor) -> Any:
        features = self.body(images)
        return self.finish(self.head(features.mean((2, 3))), features)


@dataclasses.dataclass
class Output:
    scores: Tensor
    maps: Tensor | None = None


class Pair(NamedTuple):
    scores: Tensor
    maps: Tensor


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return vizlib.wrap(Net().eval(), preprocessing=SMALL, labels=LABELS)


def wrap(finish, **options) -> vizlib.Model:
    return vizlib.wrap(Net(finish).eval(), preprocessing=SMALL, **options)


def refused(error: type[Exception], *args, **options) -> str:
    """Return the message of the error that `explain` raises, after checking that it is one line."""
    with pytest.raises(error) as caught:
        vizlib.explain(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def note_codes(attribution: vizlib.Attribution) -> set[str]:
    return {note.code for note in attribution.notes if isinstance(note, vizlib.Note)}


# ------------------------------------------------------------------------------------------------------- structured


STRUCTURES = [
    (lambda logits, features: (logits, features), lambda output: output[0], "a tuple of a tensor of shape (1, 3), "),
    (lambda logits, features: [logits], lambda output: output[0], "a list of a tensor of shape (1, 3)"),
    (
        lambda logits, features: {"out": logits, "aux": features},
        lambda output: output["out"],
        "a dictionary with out, aux",
    ),
    (lambda logits, features: Output(logits), lambda output: output.scores, "an Output with scores, maps"),
    (lambda logits, features: Pair(logits, features), lambda output: output.scores, "a Pair with scores, maps"),
]


@pytest.mark.parametrize(("finish", "pick", "description"), STRUCTURES)
def test_logits_are_picked_from_a_structured_output(finish, pick, description, model, photo):
    with pytest.raises(ModelError) as caught:
        wrap(finish)
    assert f"Net returns {description}" in str(caught.value)
    assert "give output=, a function that picks the logits" in str(caught.value)
    picked = wrap(finish, output=pick, labels=LABELS)
    assert picked.output_kind == "softmax"
    assert picked.predict(photo) == model.predict(photo)
    settings: dict[str, dict[str, Any]] = {"grad-cam": {}, "rise": {"masks": 16}, "occlusion": {}, "ablation-cam": {}}
    for method, options in settings.items():
        maps = [vizlib.explain(one, photo, method, "fence", **options).heat for one in (picked, model)]
        assert torch.equal(*maps)


def test_a_function_that_cannot_pick_is_named_with_what_it_was_given():
    with pytest.raises(ModelError, match="output= fails on a dictionary with out: KeyError: 'logits'"):
        wrap(lambda logits, features: {"out": logits}, output=lambda output: output["logits"])


def test_one_number_for_each_photo_is_one_output(photo):
    model = vizlib.wrap(Net(lambda logits, _: logits.squeeze(), outputs=1).eval(), preprocessing=SMALL)
    assert model.output_kind == "sigmoid"
    assert vizlib.explain(model, photo, "rise", masks=16).heat.std() > 0
    assert len(vizlib.explain(model, [photo, photo], "grad-cam")) == 2


def test_an_output_without_rows_has_no_classes_but_functions_of_it_are_explained(photo):
    model = wrap(lambda logits, features: {"maps": features}, output=lambda output: output["maps"])
    (note,) = model.notes
    assert isinstance(note, vizlib.Note)
    assert note.code == "output.structured"
    assert "(1, 4, 8, 8)" in note
    with pytest.raises(
        ModelError, match="predicts no classes: it returns a structured output; explain takes a function"
    ):
        model.predict(photo)
    for target in (None, 3, "llama", {0: 1.0}):
        assert "explain takes a function of the output as target=" in refused(TargetError, model, photo, target=target)

    def corner(maps: Tensor) -> Tensor:
        return maps[:, 1, :4, :4].mean((1, 2))

    attribution = vizlib.explain(model, photo, "saliency", corner)
    image = model.tensor(vizlib.open_image(photo)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.module(image)["maps"][0, 1, :4, :4].mean(), image)
    assert torch.allclose(attribution.heat, gradient[0].abs().amax(0))
    assert attribution.heat[9:, 9:].max() == 0  # the corner does not see the opposite one
    assert vizlib.explain(model, photo, "eigen-cam").label == ""
    assert list(vizlib.explain_all(model, photo)) == ["eigen-cam"]


def test_a_declared_structured_output_is_given_to_functions_as_it_is(photo):
    model = wrap(lambda logits, features: {"scores": logits}, output_kind="structured")
    assert not model.notes
    attribution = vizlib.explain(model, photo, "saliency", lambda output: output["scores"][:, 0])
    assert attribution.heat.max() > 0


# -------------------------------------------------------------------------------------------------------- functions


def margin(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 2]


@pytest.mark.parametrize("method", ["saliency", "grad-cam", "smoothgrad", "integrated-gradients", "occlusion", "rise"])
def test_a_difference_of_logits_gives_the_map_of_the_contrast(method, model, photo):
    options = {"rise": {"masks": 16, "score": "logit"}, "grad-cam": {"relu": False}}.get(method, {})
    contrast = vizlib.explain(model, photo, method, "fence", "castle", **options).heat
    options.pop("score", None)
    attribution = vizlib.explain(model, photo, method, margin, **options)
    assert torch.allclose(attribution.heat, contrast, rtol=1e-4, atol=1e-6)


def test_a_function_is_recorded_by_its_name(model, photo, tmp_path):
    attribution = vizlib.explain(model, photo, target=margin)
    assert (attribution.target, attribution.label, attribution.probability) == ("margin", "margin", None)
    named = vizlib.explain(model, photo, target=lambda logits: logits[:, 0], target_name="llama score")
    assert named.label == "llama score"
    about = json.loads(named.save(tmp_path / "map.json").read_text())
    assert (about["target"], about["probability"]) == ("llama score", None)
    assert about["score"] == pytest.approx(model.logits(model.tensor(vizlib.open_image(photo)))[0, 0].item())
    assert named.file_stem == "Net_grad-cam_llama-score"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda logits: logits.detach()[:, 0], "is cut from the output, as by detach()"),
        (lambda logits: torch.ones(len(logits), requires_grad=True), "does not depend on the output"),
        (lambda logits: logits[0, 0].item(), "returns a float; expected a tensor with one value for each photo"),
        (
            lambda logits: logits,
            "returns a tensor of shape (1, 3) for 1 photo; expected one value for each, of shape (1,)",
        ),
        (lambda logits: logits.argmax(1), "returns numbers of type int64, which have no gradient"),
        (lambda logits: logits[:, 0] / 0, "returns a value that is not finite"),
        (lambda logits: logits["out"], "the target function fails on a tensor of shape (1, 3): "),
    ],
)
def test_a_function_that_cannot_be_explained_is_refused(function, message, model, photo):
    assert message in refused(TargetError, model, photo, target=function)


def test_a_value_without_gradient_is_explained_by_methods_that_need_none(model, photo):
    plain = vizlib.explain(model, photo, "rise", lambda logits: logits[:, 0], masks=16)
    cut = vizlib.explain(model, photo, "rise", lambda logits: logits.detach()[:, 0], masks=16)
    assert torch.equal(plain.heat, cut.heat)


def test_a_function_must_return_one_value_for_each_photo_of_a_batch(model, photo):
    message = refused(TargetError, model, photo, "rise", lambda logits: logits[0, 0], masks=16)
    assert re.search(r"a tensor of shape \(\) for \d+ photos", message)  # as many as a batch has on this machine


def test_what_does_not_go_with_a_function_is_refused(model, photo):
    assert "subtract within it" in refused(TargetError, model, photo, target=margin, against=0)
    assert "leave run= out" in refused(MethodError, model, photo, target=margin, run=model.run(photo))
    assert "none is given" in refused(TargetError, model, photo, target=0, target_name="margin")


def test_legrad_applies_the_classifier_so_it_explains_no_function(photo):
    import timm

    vit = timm.create_model("test_vit", img_size=32, num_classes=3).eval()
    model = vizlib.wrap(vit, preprocessing={"input_size": (3, 32, 32)})
    assert "it explains a class, not a function" in refused(MethodError, model, photo, "legrad", margin)
    assert "legrad" in vizlib.list_methods(model)


def test_photos_may_have_functions_of_their_own(model, photo):
    other = photo[::-1].copy()
    attributions = vizlib.explain(model, [photo, other], target=[margin, "llama"])
    assert [attribution.label for attribution in attributions] == ["margin", "llama"]
    expected = [vizlib.explain(model, photo, target=margin).heat, vizlib.explain(model, other, target="llama").heat]
    assert all(torch.equal(a.heat, b) for a, b in zip(attributions, expected, strict=True))
    both = vizlib.explain(model, [photo, other], target=margin)
    assert torch.allclose(both[0].heat, expected[0], atol=1e-7)


def test_nothing_of_a_function_stays_behind(photo):
    network = Net().eval()
    model = vizlib.wrap(network, preprocessing=SMALL)
    results: list[Any] = []

    def fail(logits: Tensor) -> Tensor:
        raise RuntimeError("no")

    def work() -> None:
        with pytest.raises(TargetError):
            vizlib.explain(model, photo, "saliency", fail)
        results.extend(vizlib.explain(model, photo, "saliency", target).heat for target in (margin, 1))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.shape for result in results] == [(16, 16)] * 6
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert model.output_kind == "softmax"


# ---------------------------------------------------------------------------------------------------------- weights


def test_weights_by_label_index_or_vector_are_the_same_sum(model, photo):
    targets = ({"llama": 1.0, "castle": -0.5}, {0: 1, "2": np.float32(-0.5)}, torch.tensor([1.0, 0.0, -0.5]))
    attributions = [vizlib.explain(model, photo, "input-x-gradient", target) for target in targets]
    parts = [vizlib.explain(model, photo, "input-x-gradient", label).heat for label in ("llama", "castle")]
    for attribution in attributions:
        assert torch.allclose(attribution.heat, parts[0] - 0.5 * parts[1], atol=1e-7)
        assert attribution.label == "llama − 0.5 × castle"
        assert attribution.to_dict()["target"] == {0: 1.0, 2: -0.5}
    assert vizlib.explain(model, photo, target={"fence": 1.0}).target == 1  # a single class is just that


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no class has a weight other than 0"),
        ({"llama": 0.0}, "no class has a weight other than 0"),
        ({"llama": 1.0, 0: 2.0}, "the class llama (number 0) has two weights"),
        ({"llama": float("nan")}, "the weight of llama is nan; expected a finite number"),
        ({"llama": "much"}, "the weight of llama is 'much'; expected a finite number"),
        ({"lama": 1.0}, "this model has no class 'lama'; did you mean llama?"),
        (torch.ones(4), "the target holds weights of shape (4,); expected 3, one per class"),
        (np.ones((1, 3)), "the target holds weights of shape (1, 3); expected 3, one per class"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, message, model, photo):
    assert message in refused(TargetError, model, photo, target=weights)


def test_the_runner_up_of_a_sum_is_none_of_its_classes(model, photo):
    attribution = vizlib.explain(model, photo, target={"llama": 1.0, "fence": 1.0}, against="runner-up")
    assert attribution.against == 2
    everything = dict.fromkeys(LABELS, 1.0)
    assert "no runner-up" in refused(TargetError, model, photo, target=everything, against="runner-up")


# ------------------------------------------------------------------------------------------------------------ notes


class Fixed(nn.Module):
    """Returns given outputs for every photo, with a gradient at the pixels."""

    def __init__(self, outputs: list[float]) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.tensor(outputs))

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs + images.mean((1, 2, 3))[:, None] * 1e-6


def fixed(*outputs: float, kind: str) -> vizlib.Model:
    labels = [f"label {i}" for i in range(len(outputs))]
    return vizlib.wrap(Fixed(list(outputs)).eval(), preprocessing=SMALL, output_kind=kind, labels=labels)


@pytest.mark.parametrize(
    ("outputs", "kind", "target", "codes"),
    [
        ((3.0, 3.0, -5.0), "sigmoid", 1, set()),  # two labels are right
        ((3.0, 3.0, -5.0), "sigmoid", 2, {"target.not-predicted"}),
        ((-1.0, -2.0), "sigmoid", None, {"target.not-predicted"}),  # none is
        ((-4.0,), "sigmoid", None, {"target.not-predicted"}),
        ((-4.0,), "sigmoid", "not label 0", set()),
        ((4.0,), "sigmoid", "not label 0", {"target.not-predicted"}),
        ((0.5, 0.5), "probabilities", 1, set()),  # a tie
        ((2.0, 2.0), "softmax", 1, set()),
        ((0.7, 0.2, 0.1), "probabilities", 1, {"target.not-top"}),
        ((0.9, 0.8, 0.1), "probabilities", 1, set()),  # independent, as they do not sum to 1
        ((0.9, 0.8, 0.1), "probabilities", 2, {"target.not-predicted"}),
        ((30.0, 70.0), "values", 0, set()),
        ((0.1, 0.2), "features", 0, set()),
        ((3.0, 2.0, 1.0), "softmax", {0: 1.0, 1: 1.0}, set()),
    ],
)
def test_notes_follow_what_the_outputs_mean(outputs, kind, target, codes, photo):
    assert note_codes(vizlib.explain(fixed(*outputs, kind=kind), photo, "saliency", target)) == codes


@pytest.mark.parametrize(
    ("outputs", "kind", "code"),
    [
        ((9.0, 0.0), "softmax", "score.saturated"),
        ((9.0, 9.0), "sigmoid", "score.saturated-sigmoid"),
        ((0.999, 0.001), "probabilities", "score.saturated-output"),
    ],
)
def test_a_saturated_probability_is_told_by_the_function_that_saturates(outputs, kind, code, photo):
    assert code in note_codes(vizlib.explain(fixed(*outputs, kind=kind), photo, "saliency", score="probability"))


def test_scores_are_those_that_the_outputs_have(photo):
    for kind, scores in (("softmax", ["logit", "probability"]), ("probabilities", ["probability", "probability"])):
        model = fixed(0.6, 0.4, kind=kind)
        found = [vizlib.explain(model, photo, method).parameters["score"] for method in ("saliency", "rise")]
        assert found == scores
    values = fixed(41.0, kind="values")
    assert vizlib.explain(values, photo, "rise", masks=16).parameters["score"] == "value"
    assert "saliency takes 'value' for score, not 'logit'" in refused(
        MethodError, values, photo, "saliency", score="logit"
    )


def test_values_have_no_default_but_the_only_one(photo):
    assert vizlib.explain(fixed(41.0, kind="values"), photo, "saliency").label == "label 0"
    message = refused(TargetError, fixed(41.0, 2.0, kind="values"), photo, "saliency")
    assert "explain takes the number or label of a value" in message
    assert message.endswith("there are label 0, label 1")
    features = fixed(41.0, kind="features")
    assert "explain takes the number of a feature" in refused(TargetError, features, photo, "saliency")
    assert "there is no feature 7; this model's features are 0 to 0" in refused(
        TargetError, features, photo, "saliency", 7
    )


def test_a_single_label_is_listed_with_its_complement():
    model = fixed(-4.0, kind="sigmoid")
    outcomes = model.list_outcomes(model.predict(np.zeros((16, 16, 3), np.uint8)))
    assert [(row.index, row.label) for row in outcomes] == [(-1, "not label 0"), (0, "label 0")]
    assert [row.probability for row in outcomes] == pytest.approx([0.982014, 0.017986], abs=1e-5)
    assert [row.logit for row in outcomes] == pytest.approx([4.0, -4.0], abs=1e-4)
    several = fixed(1.0, 2.0, kind="sigmoid")
    predictions = several.predict(np.zeros((16, 16, 3), np.uint8))
    assert several.list_outcomes(predictions) == predictions
