"""Real ImageNet weights on photos whose objects are boxed: the hottest place of a map lies on the object.

`pytest -m slow -s tests/reference/test_pointing_game.py` prints what was measured.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tqdm import tqdm

import vizlib

pytestmark = pytest.mark.slow
NETWORKS = ("resnet18", "resnet50", "deit_tiny_patch16_224")
CROPS = (0.875, 0.95, 1.0)


def correct(model, photos):
    return sum(model.predict(path, top=1)[0].index == label for path, label, _ in photos)


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_patch16_224"])
def test_the_crop_matters_little_on_these_squashed_photos(name, real_network, boxed_photos, capsys):
    network, photos = partial(real_network, name), boxed_photos[::2]
    shares = {crop: correct(network(crop), photos) / len(photos) for crop in CROPS}
    with capsys.disabled():
        print(f"\n{network().name}: " + ", ".join(f"crop {crop:g}: {share:.1%}" for crop, share in shares.items()))
    assert min(shares.values()) >= 0.65
    assert max(shares.values()) - min(shares.values()) < 0.06


def hit(place, boxes):
    y, x = place
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_hottest_place_lies_on_the_object_more_often_than_chance(name, real_network, boxed_photos, capsys):
    """The pointing game (Zhang et al. 2016), for the true class, against two guesses that look at nothing.

    ImageNet's objects stand in the middle, so the middle is a strong guess; a random place is the share of box area.
    """
    model, photos = real_network(name), boxed_photos[::3]
    names = [
        name for name in ("grad-cam", "attention-relevance", "attention-rollout") if name in vizlib.list_methods(model)
    ]
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
