"""Output kinds: declared or found, and what predictions say of each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

import vizlib
from vizlib import ModelError

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SMALL = {"input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bicubic", **IMAGENET}
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


class Fixed(nn.Module):
    """Returns the same outputs for every photo, through `finish`."""

    def __init__(self, outputs: list[float], finish=lambda outputs: outputs) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.tensor(outputs))
        self.finish = finish

    def forward(self, images: Tensor) -> Tensor:
        return self.finish(self.outputs.expand(len(images), -1) + 0 * images.mean())


def wrap(module: nn.Module, **options) -> vizlib.Model:
    return vizlib.wrap(module.eval(), preprocessing=SMALL, **options)


def small_resnet(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=classes)


def test_independent_labels_get_a_sigmoid_each():
    model = wrap(Fixed([3.0, -5.0, 3.0]), output_kind="sigmoid", labels=["llama", "castle", "fence"])
    predictions = model.predict(PHOTO)
    assert [prediction.label for prediction in predictions] == ["llama", "fence", "castle"]  # equal logits by index
    expected = [1 / (1 + np.exp(-logit)) for logit in (3, 3, -5)]
    assert [prediction.probability for prediction in predictions] == pytest.approx(expected, abs=1e-6)
    assert not model.notes


def test_logits_are_ranked_where_their_probabilities_round_to_one():
    model = wrap(Fixed([40.0, 60.0, 50.0]), output_kind="sigmoid")
    assert [prediction.index for prediction in model.predict(PHOTO)] == [1, 2, 0]
    assert {prediction.probability for prediction in model.predict(PHOTO)} == {1.0}


def test_probabilities_are_shown_as_they_are():
    model = wrap(Fixed([0.2, 0.7, 0.1]), output_kind="probabilities")
    assert [round(prediction.probability or 0, 6) for prediction in model.predict(PHOTO)] == [0.7, 0.2, 0.1]


def test_values_are_listed_by_index_without_probabilities():
    model = wrap(Fixed([-1.5, 41.25, 0.3]), output_kind="values", labels=["x", "age", "y"])
    predictions = model.predict(PHOTO, top=2)
    assert [(row.index, row.label, row.probability) for row in predictions] == [(0, "x", None), (1, "age", None)]
    assert [row.text for row in predictions] == ["−1.5", "41.2"]


def test_features_have_no_predictions():
    model = wrap(Fixed([1.0, 2.0]), output_kind="features")
    with pytest.raises(ModelError, match="predicts no classes: it returns features without a classifier") as caught:
        model.predict(PHOTO)
    assert "\n" not in str(caught.value)
    assert repr(model) == "<Model Fixed: Fixed, 2 features, input 32 × 32>"


class Ensemble(nn.Module):
    """The mean of two networks' probabilities: no softmax is the last operation."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([small_resnet(3), small_resnet(3)])

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([part(images).softmax(1) for part in self.parts]).mean(0)


class Configured(nn.Module):
    """A network with the configuration of a Hugging Face model."""

    def __init__(self, problem_type: str, classes: int) -> None:
        super().__init__()
        self.network = small_resnet(classes)
        self.config = type("Config", (), {"problem_type": problem_type})()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def with_identity_head() -> nn.Module:
    network: Any = torchvision.models.mobilenet_v3_small()
    network.classifier = nn.Identity()
    return network


def with_new_head() -> nn.Module:
    network: Any = small_resnet(0)  # timm's num_classes stays 0
    network.fc = nn.Linear(int(network.num_features), 3)
    return network


@pytest.mark.parametrize(
    ("make", "kind", "note"),
    [
        (lambda: small_resnet(4), "softmax", None),
        (lambda: small_resnet(1), "sigmoid", "output.one-logit"),
        (lambda: nn.Sequential(small_resnet(3), nn.Softmax(1)), "probabilities", "output.probabilities"),
        (lambda: nn.Sequential(small_resnet(3), nn.Sigmoid()), "probabilities", "output.probabilities"),
        (lambda: nn.Sequential(small_resnet(1), nn.Sigmoid(), nn.Flatten()), "probabilities", "output.probabilities"),
        (
            lambda: Fixed([0.0, 2.0], lambda outputs: torch.sigmoid(outputs).clone()),
            "probabilities",
            "output.probabilities",
        ),
        (lambda: Fixed([0.0, 2.0], lambda outputs: torch.sigmoid(outputs) * 4), "softmax", None),
        (lambda: nn.Sequential(small_resnet(3), nn.LogSoftmax(1)), "softmax", "output.log-softmax"),
        (lambda: Ensemble(), "probabilities", "output.rows-sum-to-1"),
        (lambda: small_resnet(0), "features", "output.features"),
        (lambda: with_identity_head(), "features", "output.features"),
        (lambda: nn.Sequential(with_identity_head(), nn.Linear(576, 3)), "softmax", None),
        (lambda: with_new_head(), "softmax", None),
        (lambda: Configured("multi_label_classification", 3), "sigmoid", None),
        (lambda: Configured("regression", 1), "values", None),
        (lambda: Configured("single_label_classification", 3), "softmax", None),
    ],
)
def test_the_kind_is_found(make, kind, note):
    model = wrap(make())
    assert model.output_kind == kind
    assert [getattr(text, "code", None) for text in model.notes] == ([] if note is None else [note])


def test_a_log_softmax_gives_the_probabilities_of_its_logits():
    network = small_resnet(3)
    logits = wrap(network).predict(PHOTO)
    logarithms = wrap(nn.Sequential(network, nn.LogSoftmax(1))).predict(PHOTO)
    assert [row.index for row in logits] == [row.index for row in logarithms]
    assert [row.probability for row in logits] == pytest.approx([row.probability for row in logarithms], abs=1e-6)


def test_what_is_declared_is_not_guessed():
    model = wrap(small_resnet(1), output_kind="values")
    assert model.output_kind == "values"
    assert not model.notes
    assert model.predict(PHOTO)[0].label == "value 0"


@pytest.mark.parametrize(
    ("outputs", "declared", "message"),
    [
        ([1.0], "softmax", "a softmax over one output is always 1"),
        ([1.0, -3.0], "probabilities", "returns values from -3 to 1"),
        ([1.0, -3.0], "sigmoids", "there is no output_kind 'sigmoids'; did you mean sigmoid"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(outputs, declared, message):
    with pytest.raises(ModelError, match=message):
        wrap(Fixed(outputs), output_kind=declared)


def test_the_blank_pass_leaves_no_hook_behind():
    network = with_identity_head().eval()
    wrap(network)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_a_sidecar_declares_the_kind_and_an_argument_replaces_it(tmp_path):
    network = small_resnet(3)
    path = tmp_path / "labels.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    sidecar = {"architecture": "test_resnet", "labels": ["a", "b", "c"], "preprocessing": SMALL}
    path.with_suffix(".json").write_text(json.dumps({**sidecar, "output_kind": "sigmoid"}))
    model = vizlib.load(path)
    assert model.output_kind == "sigmoid"
    assert sum(row.probability or 0 for row in model.predict(PHOTO)) != pytest.approx(1, abs=0.01)
    assert vizlib.load(path, output_kind="softmax").output_kind == "softmax"
    path.with_suffix(".json").write_text(json.dumps({**sidecar, "output_kind": "sigmoids"}))
    with pytest.raises(ModelError, match="did you mean sigmoid"):
        vizlib.load(path)
