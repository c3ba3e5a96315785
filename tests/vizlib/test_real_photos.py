"""Real ImageNet weights on real photos: the right answers, and a picture for each of them.

`pytest -m slow -s tests/vizlib/test_real_photos.py` prints what was measured.
"""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from timm.data import ImageNetInfo
from tqdm import tqdm

import vizlib

NETWORKS = ("resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "deit_tiny_patch16_224")))
CROPS = (0.875, 0.95, 1.0)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, real_network):
    return partial(real_network, request.param)


@pytest.fixture(scope="module")
def photos(data):
    """(photo, class, boxes as x0 y0 x1 y1) of 260 ImageNet validation photos, squashed to 227 x 227."""
    folder = data / "imagenet_val_boxes"
    rows = json.loads((folder / "boxes.json").read_text())
    return [(folder / "images" / row["file"], row["label"], row["boxes"]) for row in rows]


ASKS_EACH_CHANNEL = (
    "score-cam",
    "ablation-cam",
)  # hundreds of passes a photo, however its knobs stand: one photo has to do


def all_methods(model, photo, few_passes):
    """Every method that fits, from one forward pass: those of one backward pass together, then the others."""
    run = vizlib.run_for_all(model, photo)
    found = vizlib.explain_all(model, run=run)
    for name in vizlib.methods(model):
        if name not in found and name not in ASKS_EACH_CHANNEL:
            found[name] = vizlib.explain(model, photo, name, run=run, **few_passes(name))
    return found


def assert_explains(model, photo, few_passes):
    found = all_methods(model, photo, few_passes)
    assert set(found) == set(vizlib.methods(model)) - {*ASKS_EACH_CHANNEL}
    for name, one in found.items():
        assert one.heat.isfinite().all(), name
        assert one.heat.any() or any("The map is empty" in note for note in one.notes), name
        seen = one.on_photo()
        assert seen.shape == (photo.height, photo.width)
        assert np.isfinite(seen).mean() == pytest.approx(one.geometry.seen_fraction, abs=0.02)
    return found


def correct(model, photos):
    return sum(model.predict(path, top=1)[0].index == label for path, label, _ in photos)


def test_labels_are_in_the_order_of_wordnet_numbers_like_timms(photos):
    names = ImageNetInfo().label_names()
    assert names == sorted(names)
    assert len({label for _, label, _ in photos}) > 200
    assert all(0 <= label < 1000 for _, label, _ in photos)


def test_twelve_photos_are_explained_by_every_method_and_most_are_known(network, photos, few_passes):
    model = network()
    right = 0
    for path, label, _ in photos[::22]:
        found = assert_explains(model, vizlib.open_image(path), few_passes)
        right += found["saliency"].target == label
    assert right >= 7


@pytest.mark.slow
def test_at_least_65_in_100_of_260_photos_are_known_and_every_thirteenth_is_explained(
    network, photos, few_passes, capsys
):
    model = network()
    right = 0
    for number, (path, label, _) in enumerate(tqdm(photos, desc=model.name)):
        photo = vizlib.open_image(path)
        right += model.predict(photo, top=1)[0].index == label
        if number % 13 == 0:
            assert_explains(model, photo, few_passes)
    with capsys.disabled():
        print(f"\n{model.name}: top-1 {right} of {len(photos)} = {right / len(photos):.1%}, every thirteenth explained")
    assert right / len(photos) >= 0.65


@pytest.mark.slow
def test_the_crop_matters_little_on_these_squashed_photos(network, photos, capsys):
    shares = {crop: correct(network(crop), photos) / len(photos) for crop in CROPS}
    with capsys.disabled():
        print(f"\n{network().name}: " + ", ".join(f"crop {crop:g}: {share:.1%}" for crop, share in shares.items()))
    assert min(shares.values()) >= 0.65
    assert max(shares.values()) - min(shares.values()) < 0.06


def hit(place, boxes):
    y, x = place
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


@pytest.mark.slow
def test_the_hottest_place_lies_on_the_object_more_often_than_chance(network, photos, capsys):
    """The pointing game (Zhang et al. 2016), for the true class, against two guesses that look at nothing.

    ImageNet's objects stand in the middle, so the middle is a strong guess; a random place is the share of box area.
    """
    model = network()
    names = [name for name in ("grad-cam", "attention-relevance", "attention-rollout") if name in vizlib.methods(model)]
    hits = dict.fromkeys(names, 0)
    middle, area = 0, 0.0
    for path, label, boxes in tqdm(photos, desc=model.name):
        found = vizlib.explain_all(model, path, target=label)
        for name in names:
            rows, columns = found[name].heat.shape
            row, column = divmod(int(found[name].heat.argmax()), columns)
            grid = (row + 0.5) * 224 / rows, (column + 0.5) * 224 / columns
            hits[name] += hit(found[name].geometry.to_photo(*grid), boxes)
        middle += hit((113.5, 113.5), boxes)
        inside = np.zeros((227, 227), dtype=bool)
        for x0, y0, x1, y1 in boxes:
            inside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
        area += inside.mean()
    count = len(photos)
    with capsys.disabled():
        told = ", ".join(f"{name} {number / count:.1%}" for name, number in hits.items())
        print(f"\n{model.name}: {told}; the middle {middle / count:.1%}, a random place {area / count:.1%}")
    for name in names:
        if name != "attention-rollout" and not (name == "grad-cam" and "deit" in model.name):
            assert hits[name] / count > area / count + 0.1, name
