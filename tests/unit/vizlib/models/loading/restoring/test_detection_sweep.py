"""Every ResNet, ViT, DeiT and Swin of timm and torchvision is found again by the names and shapes of its weights."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor

import vizlib
from vizlib.core.text import Note
from vizlib.models.loading.restoring.architecture_candidates import DETECTABLE_TIMM_MODULES
from vizlib.models.loading.restoring.architecture_detection import DetectedArchitecture, detect_architecture
from vizlib.models.loading.restoring.architecture_outline import (
    ArchitectureOutline,
    build_network,
    outline_plain_architecture,
)
from vizlib.models.loading.restoring.stored_networks import find_stored_networks

CLASSES = 7
TORCHVISION_FAMILIES = ("resnet", "resnext", "wide_resnet", "vit", "swin")
MAX_PARAMETERS, NUM_SAMPLES = 30e6, 16  # of the networks whose outputs are compared


def list_architectures() -> list[str]:
    """Return the names of all architectures that must be found."""
    of_timm = [name for module in DETECTABLE_TIMM_MODULES for name in timm.list_models(module=module)]
    of_torchvision = torchvision.models.list_models(torchvision.models)
    return of_timm + [f"torchvision/{name}" for name in of_torchvision if name.startswith(TORCHVISION_FAMILIES)]


def make_weights(outline: ArchitectureOutline) -> dict[str, Tensor]:
    """Return weights without values, with `CLASSES` classes."""
    return {
        key: torch.empty((CLASSES, *shape[1:]) if key in outline.classifier else shape, device="meta")
        for key, shape in outline.shapes.items()
    }


def detect(weights: Mapping[str, Tensor]) -> DetectedArchitecture | None:
    """Return the architecture of weights as a training script saves them."""
    (network,) = find_stored_networks({"state_dict": {f"module.{key}": value for key, value in weights.items()}})
    return detect_architecture(network)


def assert_found_again(path: Path, name: str) -> None:
    """Check that a random network, saved and loaded, has bitwise equal outputs, or that a note names what it is."""
    torch.manual_seed(0)
    module = build_network(name, CLASSES)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) / 20)
    torch.save(module.state_dict(), path)
    model = vizlib.load(path)
    notes = {note.code: note for note in model.notes if isinstance(note, Note)}
    photo = torch.rand(1, 3, *model.preprocessing.input_size)
    other = notes.get("model.other-architectures")
    if other is None or f"{name} (" not in other:
        with torch.no_grad():
            assert torch.equal(model.module(photo), module(photo)), (name, model)
    assert any(code.startswith("model.detected-") for code in notes)


@pytest.mark.parametrize("name", ["test_vit2", "resnet10t", "torchvision/resnet18"])
def test_a_network_saved_and_loaded_has_the_same_outputs(tmp_path, name):
    assert_found_again(tmp_path / "my.pth", name)


@pytest.mark.slow
def test_random_architectures_saved_and_loaded_have_the_same_outputs_or_a_note(tmp_path):
    """Sixteen of those with at most 30 million parameters, and of those that other architectures resemble."""
    rng, names = random.Random(0), list_architectures()
    rng.shuffle(names)
    fixed = ["resnetaa50", "resnetblur18", "swinv2_tiny_window16_256", "deit_small_distilled_patch16_224"]
    chosen = [*fixed, "torchvision/swin_t", "torchvision/vit_b_32", "swin_tiny_patch4_window7_224"]
    for name in names:
        outline = outline_plain_architecture(name)
        if sum(torch.Size(shape).numel() for shape in outline.shapes.values()) <= MAX_PARAMETERS:
            chosen.append(name)
        if len(chosen) == NUM_SAMPLES:
            break
    for name in chosen:
        assert_found_again(tmp_path / "my.pth", name)


@pytest.mark.slow
def test_every_architecture_is_found_again_or_named_as_one_that_fits():
    """About two minutes: more than 300 architectures are built without memory, and compared with those like them."""
    architectures = list_architectures()
    assert len(architectures) > 300
    lost = []
    for name in architectures:
        found = detect(make_weights(outline_plain_architecture(name)))
        names = (found.architecture, *found.same, *found.others) if found else ()
        if not {name, name.removeprefix("torchvision/")} & set(names):  # torchvision's ResNets are timm's
            lost.append((name, names))
    assert lost == []
