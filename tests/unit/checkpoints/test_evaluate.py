"""Evaluation of bundled networks: against plain arithmetic, and the stored results against a new measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vizlib

ROOT = Path(__file__).resolve().parents[3]
NAMES = {"resnet18-imagenette": "grad-cam", "vit_tiny-imagenette": "attention-relevance"}


@pytest.fixture
def logits_and_labels():
    """Logits of 40 photos of each of ten classes, mostly correct, and their labels."""
    rng = torch.Generator().manual_seed(5)
    labels = torch.arange(10).repeat_interleave(40)
    return torch.randn(400, 10, generator=rng) + 2 * torch.eye(10)[labels], labels


def test_accuracy_is_the_fraction_of_correct_predictions(logits_and_labels):
    from checkpoints.training.evaluate import summarize_accuracy

    logits, labels = logits_and_labels
    right = sum(row.index(max(row)) == label for row, label in zip(logits.tolist(), labels.tolist(), strict=True))
    result = summarize_accuracy(logits, labels, "photos")
    assert result["top1"] == round(100 * right / 400, 2)
    assert result["interval95"][0] < result["top1"] < result["interval95"][1]
    assert result["photos"] == 400


def test_confusions_list_misclassified_fractions(logits_and_labels):
    from checkpoints.training.evaluate import describe_confusions
    from checkpoints.training.imagenette import LABELS

    logits, labels = logits_and_labels
    logits[labels == 3, 7] += 3  # many photos of class 3 are predicted as class 7
    names = list(LABELS.values())
    taken = sum(int(row.argmax()) == 7 for row in logits[labels == 3])
    text = describe_confusions(logits, labels, names)
    assert (
        text[0] == f"Of the validation photos of a {names[3]}, {100 * taken / 40:.1f} % are classified as a {names[7]}."
    )
    assert len(text) == 3
    assert not [
        line for line in text for name in names if line.count(f"a {name}") > 1
    ]  # a correct prediction is not a confusion


def test_ood_threshold_covers_95_percent_of_validation_photos(logits_and_labels):
    from checkpoints.training.evaluate import calibrate_ood_score
    from vizlib.models.ood import OodScore

    logits, _ = logits_and_labels
    others = torch.randn(300, 10, generator=torch.Generator().manual_seed(6)) / 2
    content = calibrate_ood_score(logits, "these photos", others, "other photos")
    ood_score = OodScore.from_sidecar(content)
    assert ood_score is not None
    scores = ood_score.compute(logits)
    assert (scores >= ood_score.threshold).float().mean().item() == pytest.approx(0.95, abs=0.006)
    flagged = sum(ood_score.ood_note(row) is not None for row in others) / 300
    assert content["other_photos"]["flagged"] == pytest.approx(flagged, abs=1e-3)
    assert content["other_photos"]["photos"] == 300
    assert flagged > 0.3
    assert "other_photos" not in calibrate_ood_score(logits, "these photos")


@pytest.mark.parametrize(
    ("right", "total", "wanted"), [(10, 20, (0.2993, 0.7007)), (0, 10, (0.0, 0.2775)), (0, 1, (0, 0.7935))]
)
def test_wilson_interval(right, total, wanted):
    from checkpoints.training.evaluate import wilson_interval

    interval = wilson_interval(right, total)
    assert interval == pytest.approx(wanted, abs=1e-4)
    assert str(interval[0])[0] != "-"  # rounding gives -0.0 for 0 of 1


@pytest.fixture(scope="module")
def fifth(data, tmp_path_factory) -> Path:
    """A folder with every fifth of Imagenette's validation photos: of all of them a network takes minutes."""
    from checkpoints.training.imagenette import LABELS, open_imagenette

    folder = tmp_path_factory.mktemp("fifth")
    (folder / "train").mkdir()
    with open_imagenette(str(data / "imagenette2-160.tar")) as whole:
        for label in LABELS:
            (folder / "val" / label).mkdir(parents=True)
            for photo in sorted((whole / "val" / label).iterdir())[::5]:
                photo.rename(folder / "val" / label / photo.name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stored_accuracy_is_reproduced_by_its_command(fifth, name):
    from checkpoints.training.evaluate import wilson_interval

    stored = json.loads((ROOT / "checkpoints" / f"{name}.json").read_text())["accuracy"]
    command = [sys.executable, "-m", "checkpoints.training.train", "--evaluate", name, "--data", str(fifth)]
    attribution = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(attribution.stdout.partition(" ")[2].replace("'", '"'))
    print(name, "stored", stored["top1"], "found", result["top1"], "on", result["photos"], "photos")
    assert stored["photos"] == 3925
    assert result["photos"] == pytest.approx(3925 / 5, abs=10)  # a fifth of each class
    low, high = (
        100 * share for share in wilson_interval(round(stored["top1"] / 100 * result["photos"]), result["photos"])
    )
    assert low < result["top1"] < high


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_maps_are_more_faithful_than_a_centred_gaussian(fifth, name):
    from checkpoints.training.imagenette import load_photos
    from vizlib.metrics import centred_gaussian, deletion

    model, areas = vizlib.load(name), []
    val = load_photos(fifth, "val").photos
    middle = centred_gaussian(model.preprocessing.input_size)
    for photo, _ in val[:: len(val) // 10]:  # a twentieth of how many the model card is about
        why = vizlib.explain(model, photo, NAMES[name])
        areas.append((deletion(model, why).auc, deletion(model, replace(why, heat=middle)).auc))
    result, blind = torch.tensor(areas).mean(0).tolist()
    print(name, NAMES[name], "deletion AUC", round(result, 4), "centred Gaussian", round(blind, 4))
    stored = json.loads((ROOT / "checkpoints" / f"{name}.json").read_text())["faithfulness"]
    assert stored["auc"] < stored["centred_gaussian"]
    assert result < blind
