"""The bundled digit CLIP names what is in a scene, and its maps are on the digit that a prompt names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import vizlib
from checkpoints.training.digit_scenes import DigitImages
from checkpoints.training.evaluate_clip import (
    find_peak,
    grade_contrast,
    grade_peaks,
    list_graded_scenes,
    make_model,
    pool_to_patches,
)
from checkpoints.training.train_clip import compute_accuracy, load_weights
from dashboard.services.example_photos import open_example_photos
from vizlib.models.loading.checkpoint_files import list_bundled

WEIGHTS = list_bundled()["clip-digits"]


@pytest.fixture(scope="module")
def digits() -> DigitImages:
    folder = Path(os.environ.get("VIZLIB_DATA", "")) / "digits"
    if not os.environ.get("VIZLIB_DATA") or not folder.is_dir():
        pytest.skip("VIZLIB_DATA names no folder with digits/")
    return DigitImages(folder, "t10k")


def test_example_picture_is_read_and_each_map_is_on_its_digit():
    model, picture = vizlib.load("clip-digits"), open_example_photos()["ex:digits"]
    best = {prediction.label for prediction in model.predict(picture, top=3)}
    assert best == {"a red seven", "a blue two", "a yellow four"}
    for prompt, (row, column) in (("a red seven", (0, 0)), ("a blue two", (1, 1)), ("a yellow four", (0, 1))):
        peak = find_peak(vizlib.explain(model, picture, target=prompt).heat)
        assert (peak[0] // 3, peak[1] // 3) == (row, column)
    assert WEIGHTS.stat().st_size < 4e6


@pytest.mark.slow
def test_best_prompt_is_in_fresh_scenes_and_in_held_out_combinations(digits):
    accuracy = compute_accuracy(load_weights(WEIGHTS), digits, seed=5, count=1000)
    assert accuracy["top1"] >= 90
    assert accuracy["held_out"] >= 75


@pytest.mark.slow
def test_relevance_has_its_peak_on_the_named_digit_and_random_weights_do_not(digits):
    scenes = list(list_graded_scenes(digits, 60))
    model = make_model(WEIGHTS)
    named, other = grade_peaks(model, scenes, ["attention-relevance"])["attention-relevance"]
    assert named >= 0.93  # 0.97 of 200 scenes
    assert other <= 0.07
    assert grade_contrast(model, scenes, ["attention-relevance"])["attention-relevance"] >= 0.95
    named, other = grade_peaks(make_model(None), scenes[:30], ["attention-relevance"])["attention-relevance"]
    assert abs(named - other) < 0.25


@pytest.mark.slow
def test_scenes_are_graded_by_the_patches_that_their_digits_touch(digits):
    scene = next(iter(list_graded_scenes(digits, 1)))
    assert scene.image.shape == (48, 48, 3)
    assert not (scene.patches[0] & scene.patches[1]).any()
    brightness = scene.image.max(2).reshape(6, 8, 6, 8).max((1, 3))
    assert (brightness[scene.patches.any(0).numpy()] > 60).all()
    heat = vizlib.explain(make_model(WEIGHTS), scene.image, "saliency", scene.prompts[0]).heat
    assert pool_to_patches(heat).sum() == pytest.approx(heat.sum().item(), rel=1e-4)
    assert find_peak(heat) == tuple(int(index) // 8 for index in divmod(int(heat.argmax()), 48))
