"""`explain_each` gives the results of `explain`, with memory for a few photos."""

from __future__ import annotations

import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vizlib
from vizlib.attribution import photo_stream
from vizlib.core.errors import ImageError, MethodError, TargetError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vizlib.wrap(
        timm.create_model("test_resnet", num_classes=3).eval(),
        preprocessing={"input_size": (3, 64, 64)},
        labels=["a", "b", "c"],
    )


def make_photo(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize(
    ("target", "against"), [(None, None), ("b", "runner-up"), (["a", None, 2, "c", 0], "b"), (1, [0, None, 2, "c", 0])]
)
def test_results_are_those_of_explain_for_each_photo(count, target, against, model, monkeypatch):
    monkeypatch.setattr(photo_stream, "MAX_PHOTOS_AT_ONCE", 2)
    target = target[:count] if isinstance(target, list) else target
    against = against[:count] if isinstance(against, list) else against
    results = list(
        vizlib.explain_each(model, map(make_photo, range(count)), "grad-cam", target, against, layer=model.stages[2])
    )
    assert len(results) == count
    for i, result in enumerate(results):
        selectors = [one[i] if isinstance(one, list) else one for one in (target, against)]
        expected = vizlib.explain(model, make_photo(i), "grad-cam", *selectors, layer=model.stages[2])
        assert (result.target, result.against, result.parameters) == (
            expected.target,
            expected.against,
            expected.parameters,
        )
        torch.testing.assert_close(result.heat, expected.heat, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(result.photo), make_photo(i))


def test_photos_are_opened_when_their_turn_comes_and_dropped(model, monkeypatch):
    monkeypatch.setattr(photo_stream, "MAX_PIXELS_AT_ONCE", 2 * 60 * 80)
    references, alive = [], []

    def photos():
        for i in range(9):
            alive.append(sum(reference() is not None for reference in references))
            yield make_photo(i)

    for result in vizlib.explain_each(model, photos(), "saliency"):
        references.append(weakref.ref(result.photo))
        del result
    assert len(references) == 9
    assert max(alive) <= 3  # two that share a pass, and the last result


def test_error_of_a_photo_comes_after_the_results_before_it(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"text")
    photos = [make_photo(0), make_photo(1), tmp_path / "bad.png", make_photo(3)]
    results = []
    with pytest.raises(ImageError, match=r"'bad.png' is text"):
        results.extend(vizlib.explain_each(model, iter(photos), "saliency"))
    assert len(results) == 2

    def usable():
        for photo in photos:
            with suppress(ImageError):
                yield vizlib.open_image(photo)

    assert len(list(vizlib.explain_each(model, usable(), "saliency"))) == 3


def test_wrong_arguments_are_refused(model):
    read = []
    photos = (read.append(i) or make_photo(i) for i in range(3))
    with pytest.raises(MethodError, match="there is no method"):
        vizlib.explain_each(model, photos, "grad-cm")
    assert not read
    unchecked = getattr(vizlib.explain_each, "__wrapped__", vizlib.explain_each)  # tests check the types of arguments
    for single in (
        "photo.png",
        Path("photo.png"),
        b"data",
        Image.new("RGB", (20, 20)),
        make_photo(0),
        torch.zeros(3, 20, 20),
    ):
        with pytest.raises(ImageError, match="explain takes one"):
            unchecked(model, cast(Any, single))
    results = []
    with pytest.raises(TargetError, match="at least 3 photos, but fewer classes"):
        results.extend(vizlib.explain_each(model, map(make_photo, range(3)), "saliency", target=["a", "b"]))
    assert len(results) == 2
    with pytest.raises(TargetError, match="against holds 4 classes for 3 photos"):
        list(vizlib.explain_each(model, map(make_photo, range(3)), "saliency", against=[0, 1, 2, 0]))
    assert len(list(vizlib.explain_each(model, torch.rand(3, 3, 20, 30), "saliency"))) == 3
    with pytest.raises(ImageError, match="explain_each takes several photos"):
        vizlib.open_image(iter([make_photo(0)]))
