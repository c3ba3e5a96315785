"""Pointing game with real ImageNet weights: the maximum of a map lies in a bounding box of the object.

`pytest -m slow -s tests/reference/test_pointing_game.py` prints the measured values.
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
def test_accuracy_depends_little_on_the_crop(name, real_network, boxed_photos, capsys):
    network, photos = partial(real_network, name), boxed_photos[::2]
    shares = {crop: correct(network(crop), photos) / len(photos) for crop in CROPS}
    with capsys.disabled():
        print(f"\n{network().name}: " + ", ".join(f"crop {crop:g}: {share:.1%}" for crop, share in shares.items()))
    assert min(shares.values()) >= 0.65
    assert max(shares.values()) - min(shares.values()) < 0.06


def is_in_a_box(point, boxes):
    y, x = point
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


@pytest.mark.parametrize("name", NETWORKS)
def test_maximum_of_the_map_is_on_the_object_more_often_than_chance(name, real_network, boxed_photos, capsys):
    """The pointing game (Zhang et al. 2016) for the true class, beside two baselines that ignore the photo.

    The centre is a strong baseline, because the objects of ImageNet are central; a random point hits a box as often as
    its share of the area.
    """
    model, photos = real_network(name), boxed_photos[::6]
    names = [
        name for name in ("grad-cam", "attention-relevance", "attention-rollout") if name in vizlib.list_methods(model)
    ]
    hits = dict.fromkeys(names, 0)
    centre_hits, box_area = 0, 0.0
    for path, label, boxes in tqdm(photos, desc=model.name):
        attributions = vizlib.explain_all(model, path, target=label)
        for name in names:
            rows, columns = attributions[name].heat.shape
            row, column = divmod(int(attributions[name].heat.argmax()), columns)
            grid = (row + 0.5) * 224 / rows, (column + 0.5) * 224 / columns
            hits[name] += is_in_a_box(attributions[name].geometry.to_photo(*grid), boxes)
        centre_hits += is_in_a_box((113.5, 113.5), boxes)
        in_box = np.zeros((227, 227), dtype=bool)
        for x0, y0, x1, y1 in boxes:
            in_box[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
        box_area += in_box.mean()
    count = len(photos)
    with capsys.disabled():
        summary = ", ".join(f"{name} {number / count:.1%}" for name, number in hits.items())
        print(f"\n{model.name}: {summary}; the centre {centre_hits / count:.1%}, a random point {box_area / count:.1%}")
    for name in names:
        if name != "attention-rollout" and not (name == "grad-cam" and "deit" in model.name):
            assert hits[name] / count > box_area / count + 0.1, name
