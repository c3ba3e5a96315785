"""Real ImageNet weights on real photos: the right answers, and a picture for each of them.

`pytest -m slow -s tests/reference/test_real_photos.py` prints what was measured.
"""

from __future__ import annotations

import numpy as np
import pytest
from timm.data import ImageNetInfo
from tqdm import tqdm

import vizlib

ASKS_EACH_CHANNEL = (
    "score-cam",
    "ablation-cam",
)  # hundreds of passes a photo, however its knobs stand: one photo has to do


def all_methods(model, photo, few_passes):
    """Every method that fits, from one forward pass: those of one backward pass together, then the others."""
    run = vizlib.run_for_all(model, photo)
    found = vizlib.explain_all(model, run=run)
    for name in vizlib.list_methods(model):
        if name not in found and name not in ASKS_EACH_CHANNEL:
            found[name] = vizlib.explain(model, photo, name, run=run, **few_passes(name))
    return found


def assert_explains(model, photo, few_passes):
    found = all_methods(model, photo, few_passes)
    assert set(found) == set(vizlib.list_methods(model)) - {*ASKS_EACH_CHANNEL}
    for name, one in found.items():
        assert one.heat.isfinite().all(), name
        assert one.heat.any() or any("The map is empty" in note for note in one.notes), name
        seen = one.on_photo()
        assert seen.shape == (photo.height, photo.width)
        assert np.isfinite(seen).mean() == pytest.approx(one.geometry.seen_fraction, abs=0.02)


def test_labels_are_in_the_order_of_wordnet_numbers_like_timms(boxed_photos):
    names = ImageNetInfo().label_names()
    assert names == sorted(names)
    assert len({label for _, label, _ in boxed_photos}) > 200
    assert all(0 <= label < 1000 for _, label, _ in boxed_photos)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "deit_tiny_patch16_224"])
def test_at_least_65_in_100_of_260_photos_are_known_and_every_52nd_is_explained(
    name, real_network, boxed_photos, few_passes, capsys
):
    model, right = real_network(name), 0
    for number, (path, label, _) in enumerate(tqdm(boxed_photos, desc=model.name)):
        photo = vizlib.open_image(path)
        right += model.predict(photo, top=1)[0].index == label
        if number % 52 == 0:
            assert_explains(model, photo, few_passes)
    share = right / len(boxed_photos)
    with capsys.disabled():
        print(f"\n{model.name}: top-1 {right} of {len(boxed_photos)} = {share:.1%}, every 52nd explained")
    assert share >= 0.65
