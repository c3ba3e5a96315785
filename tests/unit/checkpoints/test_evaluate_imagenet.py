"""Evaluation of networks with 1,000 classes: parts of the photos, accuracies, intervals, calibration."""

from __future__ import annotations

import io
import math
import zipfile

import pytest
import torch
from PIL import Image

import vizlib
from checkpoints.training.calibration import (
    compute_calibration_error,
    evaluate_calibration,
    fit_temperature,
)
from checkpoints.training.evaluate_imagenet import (
    bootstrap_ratio,
    describe_weak_groups,
    evaluate_beside_teacher,
    find_correct,
    format_table,
    load_labelled_photos,
)


@pytest.fixture
def logits_and_labels():
    """Logits of 400 photos of ten classes, mostly correct, and their labels."""
    rng = torch.Generator().manual_seed(5)
    labels = torch.arange(10).repeat_interleave(40)
    return torch.randn(400, 10, generator=rng) + 2 * torch.eye(10)[labels], labels


def test_top_k_is_correct_if_the_label_is_among_the_highest(logits_and_labels):
    logits, labels = logits_and_labels
    for count in (1, 5):
        slow = [
            label in sorted(range(10), key=lambda index, row=row: -row[index])[:count]
            for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
        ]
        assert find_correct(logits, labels, count).tolist() == slow


def test_labelled_photos_are_split_by_fifths(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos_labelled.zip", "w") as archive:
        for index in range(12):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (index, 0, 0)).save(file, "PNG")
            archive.writestr(f"{index}.png", file.getvalue())
        archive.writestr("labels.csv", "file,label,licence\n" + "".join(f"{i}.png,{3 * i},CC\n" for i in range(12)))
    numbers = {}
    for part in ("all", "choice", "report"):
        photos, labels = load_labelled_photos(tmp_path, part)
        numbers[part] = [photo.getpixel((0, 0))[0] for photo in photos]  # pyright: ignore[reportOptionalSubscript, reportIndexIssue]
        assert labels.tolist() == [3 * index for index in numbers[part]]
    assert numbers["choice"] == [0, 5, 10]
    assert numbers["report"] == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert numbers["all"] == list(range(12))


def test_bootstrap_interval_of_a_ratio_is_paired():
    correct = torch.arange(400) % 4 != 0
    assert bootstrap_ratio(correct, correct) == [1.0, 1.0]  # the same photos are drawn for both
    low, high = bootstrap_ratio(correct, torch.ones(400, dtype=torch.bool))
    spread = 1.96 * math.sqrt(0.75 * 0.25 / 400)  # the normal approximation of one proportion
    assert low == pytest.approx(0.75 - spread, abs=0.01)
    assert high == pytest.approx(0.75 + spread, abs=0.01)


class Colours(torch.nn.Module):
    """Logits of ten classes from the mean colour; the highest is that of the red value, `shift` classes further."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, images):
        red = images[:, 0].mean((1, 2)) * 10
        return -(red[:, None] - self.shift - torch.arange(10) - 0.5).abs()


def test_student_is_compared_with_the_teacher_on_the_same_photos():
    plain = {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}
    student, teacher = (vizlib.wrap(Colours(shift), preprocessing=plain, labels=list("abcdefghij")) for shift in (0, 1))
    colours = [5 + 25 * index for index in range(10)] * 2
    photos = [Image.new("RGB", (10, 10), (red, 0, 0)) for red in colours]
    classes = torch.tensor([min(int(red / 25.5), 9) for red in colours])
    result = evaluate_beside_teacher(student, teacher, (photos, classes))
    assert result["photos"] == 20
    assert result["top1"]["student"]["percent"] == 100
    assert result["top1"]["teacher"]["percent"] == 10  # class 0 has no class before it
    assert result["top1"]["ratio"] == 10
    assert result["top5"]["teacher"]["percent"] == 100
    assert result["agreement"] == 10
    table = format_table([("photos", result)])
    assert "| 20 photos | top1 | 100.0 (83.89 to 100.0) | 10.0 (" in table


def test_weak_groups_are_those_with_most_wrong_photos():
    labels = torch.cat([torch.full((25,), index) for index in (151, 281, 404)] + [torch.full((5,), 970)])
    logits = torch.eye(1000)[labels]
    logits[:5] = torch.eye(1000)[152]  # 5 of 25 photos are of another breed of dogs
    logits[25:40] = torch.eye(1000)[153]  # 15 of 25 cats are dogs
    logits[-5:] = torch.eye(1000)[0]  # all five landscapes are wrong, but they are too few
    assert describe_weak_groups(logits, labels, 2) == [
        "Of 25 photos of the group cat, 40 % are classified correctly, and 40 % as a class of this group.",
        "Of 25 photos of the group dog, 80 % are classified correctly, and 100 % as a class of this group.",
    ]


def test_temperature_of_scaled_logits_is_the_scale(logits_and_labels):
    logits, labels = logits_and_labels
    temperature = fit_temperature(logits, labels)
    losses = [torch.nn.functional.cross_entropy(logits / t, labels).item() for t in (temperature, 0.98 * temperature)]
    assert losses[0] < losses[1]
    assert losses[0] < torch.nn.functional.cross_entropy(logits / (1.02 * temperature), labels).item()
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * temperature, rel=1e-3)


def test_calibration_error_is_the_mean_gap_of_the_bins(logits_and_labels):
    logits, labels = logits_and_labels
    bins: dict[int, list[tuple[float, float]]] = {}
    for row, label in zip(logits.double().softmax(-1).tolist(), labels.tolist(), strict=True):
        top = max(row)
        bins.setdefault(min(math.ceil(top * 15), 15), []).append((float(row.index(top) == label), top))
    slow = sum(abs(sum(right for right, _ in entries) - sum(top for _, top in entries)) for entries in bins.values())
    assert compute_calibration_error(logits, labels) == pytest.approx(slow / 400, abs=1e-9)


def test_calibration_is_fitted_on_one_half_and_measured_on_the_other(logits_and_labels):
    logits, labels = 4 * logits_and_labels[0], logits_and_labels[1]
    result = evaluate_calibration(logits, labels)
    assert result["temperature"] == pytest.approx(fit_temperature(logits[::2], labels[::2]), abs=1e-3)
    assert result["photos"] == 200
    assert result["error"] == pytest.approx(compute_calibration_error(logits[1::2], labels[1::2]), abs=1e-4)
    assert result["error_with_temperature"] < result["error"] - 0.03
