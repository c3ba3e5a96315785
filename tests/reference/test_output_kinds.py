"""Maps of every output kind and target equal slow formulas: RISE, occlusion and gradients of what the outputs mean."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizlib
from vizlib import TargetError
from vizlib.attribution.methods.perturbation import make_rise_masks

SIZE = (16, 20)
PREPROCESSING = {"input_size": (3, *SIZE), "crop_pct": 1.0, "crop_mode": "squash"}
LABELS = ["llama", "fence", "castle"]
RISE = {"masks": 16, "cells": 3, "share": 0.5, "seed": 3}
OCCLUSION = {"window": 8, "stride": 4, "baseline": "black"}


class Small(nn.Module):
    """Two convolutions and a linear layer in double precision, with outputs of different sizes; then `finish`."""

    def __init__(self, outputs: int, finish: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, outputs)
        self.finish = finish or nn.Identity()
        with torch.no_grad():
            self.head.weight.mul_(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.finish(self.head(self.body(images).mean((2, 3))))


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def make_model(outputs: int, kind: str, finish: nn.Module | None = None) -> vizlib.Model:
    module = Small(outputs, finish).double().eval()
    return vizlib.wrap(module, preprocessing=PREPROCESSING, output_kind=kind, labels=LABELS[:outputs])


CASES = {  # name: (model, target, what the score is of the outputs "n outputs")
    "one logit": (lambda: make_model(1, "sigmoid"), 0, lambda outputs: 1 / (1 + (-outputs[:, 0]).exp())),
    "not the label": (lambda: make_model(1, "sigmoid"), "not llama", lambda outputs: 1 / (1 + outputs[:, 0].exp())),
    "independent labels": (
        lambda: make_model(3, "sigmoid"),
        "castle",
        lambda outputs: 1 / (1 + (-outputs[:, 2]).exp()),
    ),
    "exclusive classes": (
        lambda: make_model(3, "softmax"),
        "castle",
        lambda outputs: outputs[:, 2].exp() / outputs.exp().sum(1),
    ),
    "probabilities": (lambda: make_model(3, "probabilities", nn.Softmax(1)), 1, lambda outputs: outputs[:, 1]),
    "values": (lambda: make_model(3, "values"), "fence", lambda outputs: outputs[:, 1]),
    "features": (lambda: make_model(3, "features"), 2, lambda outputs: outputs[:, 2]),
    "weights": (
        lambda: make_model(3, "sigmoid"),
        {"llama": 1.0, "castle": -0.5},
        lambda outputs: torch.sigmoid(outputs[:, 0]) - 0.5 * torch.sigmoid(outputs[:, 2]),
    ),
    "function": (
        lambda: make_model(3, "softmax"),
        lambda outputs: outputs[:, 1] * outputs[:, 2],
        lambda outputs: outputs[:, 1] * outputs[:, 2],
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    make, target, score = CASES[request.param]
    return make(), target, score


def test_rise_is_the_mean_of_masks_weighted_by_what_the_outputs_mean(case, photo):
    model, target, score = cast(tuple[Any, Any, Any], case)
    image = model.tensor(vizlib.open_image(photo))
    masks = make_rise_masks(torch.arange(RISE["masks"]), SIZE, RISE["cells"], RISE["share"], RISE["seed"]).double()
    expected = torch.zeros(SIZE, dtype=torch.float64)
    for mask in masks:
        with torch.no_grad():
            expected += score(model.module(image * mask)).item() * mask / (RISE["masks"] * RISE["share"])
    heat = vizlib.explain(model, photo, "rise", target, **RISE).heat
    assert torch.allclose(heat, expected.float(), rtol=1e-5, atol=1e-6)


def test_occlusion_of_the_probability_or_value_is_the_mean_drop(case, photo):
    model, target, score = cast(tuple[Any, Any, Any], case)
    image = model.tensor(vizlib.open_image(photo))
    black = (
        ((0 - torch.tensor(model.preprocessing.mean)) / torch.tensor(model.preprocessing.std)).view(3, 1, 1).double()
    )
    drops, counts = torch.zeros(2, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        full = score(model.module(image))
        for top in range(0, SIZE[0] - 7, 4):
            for left in range(0, SIZE[1] - 7, 4):
                covered = image.clone()
                covered[0, :, top : top + 8, left : left + 8] = black
                drops[top : top + 8, left : left + 8] += (full - score(model.module(covered))).item()
                counts[top : top + 8, left : left + 8] += 1
    last: Any = model.output_row.scores[-1] if not callable(target) else "value"
    heat = vizlib.explain(model, photo, "occlusion", cast(Any, target), score=last, **OCCLUSION).heat
    assert torch.allclose(heat, (drops / counts).float(), rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_the_score(case, photo):
    model, target, score = cast(tuple[Any, Any, Any], case)
    image = model.tensor(vizlib.open_image(photo)).requires_grad_()
    (gradient,) = torch.autograd.grad(score(model.module(image)).sum(), image)
    last: Any = model.output_row.scores[-1] if not callable(target) else "value"
    heat = vizlib.explain(model, photo, "input-x-gradient", cast(Any, target), score=last).heat
    assert torch.allclose(heat, (gradient * image.detach())[0].sum(0).float(), rtol=1e-5, atol=1e-7)


def test_the_recorded_score_is_the_value_of_what_is_explained(case, photo):
    model, target, score = cast(tuple[Any, Any, Any], case)
    attribution = vizlib.explain(model, photo, "rise", target, **RISE)
    with torch.no_grad():
        expected = score(model.module(model.tensor(vizlib.open_image(photo)))).item()
    assert attribution.score == pytest.approx(expected, abs=1e-6)


def test_one_logit_gives_the_maps_of_the_same_classifier_with_two_logits(photo):
    class AgainstZero(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            logit = self.network(images)
            return torch.cat([logit, torch.zeros_like(logit)], 1)

    one = make_model(1, "sigmoid")
    two = vizlib.wrap(AgainstZero(one.module).eval(), preprocessing=PREPROCESSING, labels=["llama", "other"])
    for method in ("rise", "occlusion"):
        options = RISE if method == "rise" else {**OCCLUSION, "score": "probability"}
        maps = [vizlib.explain(model, photo, method, "llama", **options).heat for model in (one, two)]
        assert torch.allclose(*maps, atol=1e-6)
    complement = vizlib.explain(one, photo, "rise", "not llama", **RISE).heat
    assert torch.allclose(complement, vizlib.explain(two, photo, "rise", "other", **RISE).heat, atol=1e-6)


def test_the_complement_is_a_contrast_class_with_the_negative_logit(photo):
    model = make_model(1, "sigmoid")
    plain = vizlib.explain(model, photo, "input-x-gradient")
    contrast = vizlib.explain(model, photo, "input-x-gradient", against="not llama")
    assert torch.allclose(contrast.heat, 2 * plain.heat)  # the logit minus its negative
    assert contrast.score == pytest.approx(2 * plain.score)
    assert (contrast.target, contrast.against) == (0, "not llama")
    with pytest.raises(TargetError, match="one output, so there is no runner-up; against='not llama' compares"):
        vizlib.explain(model, photo, against="runner-up")


def test_the_logit_of_independent_labels_is_the_output_itself(photo):
    model = make_model(3, "sigmoid")
    image = model.tensor(vizlib.open_image(photo)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.module(image)[0, 1], image)
    heat = vizlib.explain(model, photo, "input-x-gradient", "fence").heat
    assert torch.allclose(heat, (gradient * image.detach())[0].sum(0).float(), rtol=1e-5, atol=1e-7)


def test_contributions_and_deletion_follow_the_kind(photo):
    model = make_model(3, "sigmoid")
    image = model.tensor(vizlib.open_image(photo))
    with torch.no_grad():
        logit = model.module(image)[0, 1].item()
    assert vizlib.contributions(model, photo, "fence").logit == pytest.approx(logit)
    curve = vizlib.metrics.deletion(model, vizlib.explain(model, photo, target="fence"), steps=2)
    assert curve.score[0].item() == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
