"""The bundled network with 1,000 classes: example photos, unfamiliar images, and its stored figures measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vizlib
from checkpoints.training.evaluate import compute_logits
from checkpoints.training.unfamiliar_images import draw_unfamiliar_images
from dashboard.services.example_photos import open_example_photos
from dashboard.services.explanation_request import DEFAULT_METHOD

NAME = "vit_tiny-imagenet"
SIDECAR = json.loads((Path(__file__).resolve().parents[3] / "checkpoints" / f"{NAME}.json").read_text())
# What the example photos show: class, and boxes around it (x0, y0, x1, y1) drawn by hand.
EXAMPLES = {
    "ex:lion": ("lion", [(50, 0, 190, 225)]),
    "ex:cheetah": ("cheetah", [(80, 115, 380, 240)]),
    "ex:grace_hopper": ("military uniform", [(150, 20, 375, 145), (20, 310, 512, 600)]),
}


@pytest.fixture(scope="module")
def model() -> vizlib.Model:
    return vizlib.load(NAME)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_photo_is_named_and_its_heat_is_on_the_object(model, name):
    from checkpoints.training.evaluate_maps import compute_energy_in_boxes

    photo, (label, boxes) = open_example_photos()[name], EXAMPLES[name]
    assert label in [prediction.label.split(",")[0] for prediction in model.predict(photo, top=3)]
    attribution = vizlib.explain(model, photo, DEFAULT_METHOD, target=label)
    area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) / (photo.width * photo.height)
    energy = compute_energy_in_boxes(attribution, boxes)
    print(f"{name}: {energy:.2f} of the heat in {area:.2f} of the photo")
    assert energy > min(0.9, 1.3 * area)
    assert model.ood_note(model.logits(model.tensor(photo))) is None


def test_note_fires_on_unfamiliar_images(model):
    photos = list(open_example_photos().values())
    flagged = {}
    for kind, images in draw_unfamiliar_images(photos, 4, seed=7).items():
        logits = compute_logits(model, images)
        flagged[kind] = sum(model.ood_note(row[None]) is not None for row in logits) / len(images)
    print(flagged)
    assert sum(flagged.values()) / len(flagged) >= 0.6


def test_stored_figures_reach_what_the_network_was_shipped_for():
    accuracy, ood = SIDECAR["accuracy"], SIDECAR["ood"]
    assert accuracy["top1"] >= 0.9 * accuracy["teacher"]["top1"]
    assert accuracy["top5"] >= 0.96 * accuracy["teacher"]["top5"]
    assert ood["other_photos"]["flagged"] >= 0.7
    assert ood["report_photos"]["flagged"] <= 0.1


@pytest.mark.slow
def test_stored_accuracy_is_measured_again(model, data):
    from checkpoints.training.evaluate import wilson_interval
    from checkpoints.training.evaluate_imagenet import find_correct, load_labelled_photos

    photos, labels = load_labelled_photos(data, "report")
    photos, labels = photos[::4], labels[::4]
    logits = compute_logits(model, photos)
    for count in (1, 5):
        stored = SIDECAR["accuracy"][f"top{count}"] / 100
        low, high = wilson_interval(round(stored * len(labels)), len(labels))
        measured = find_correct(logits, labels, count).float().mean().item()
        print(f"top-{count}: stored {stored:.3f}, measured {measured:.3f} on {len(labels)} photos")
        assert low <= measured <= high
    noted = torch.tensor([model.ood_note(row[None]) is not None for row in logits]).float().mean().item()
    assert noted <= 0.15


@pytest.mark.slow
def test_maps_are_about_as_good_as_the_teachers(model, data):
    from checkpoints.training.distill_imagenet import PREPROCESSING, create_teacher
    from checkpoints.training.evaluate_imagenet import load_photos_with_boxes
    from checkpoints.training.evaluate_maps import METHODS, compare_maps

    teacher = vizlib.wrap(create_teacher(data).eval(), preprocessing=PREPROCESSING)
    result = compare_maps(model, teacher, load_photos_with_boxes(data)[::13])
    print(result)
    for method in METHODS:  # on all 260 photos the differences are within 0.03, or in favour of the network
        energy, area = result[method]["energy"], result[method]["deletion"]
        assert energy["student"] >= energy["teacher"] - 0.06, method
        assert area["student"] <= area["teacher"] + 0.06, method
    assert min(result["attention"]["correlation"]) > 0.5
