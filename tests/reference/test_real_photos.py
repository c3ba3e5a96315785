"""Real ImageNet weights on real photos: accurate predictions, and a map of every method.

`pytest -m slow -s tests/reference/test_real_photos.py` prints the measured values.
"""

from __future__ import annotations

import numpy as np
import pytest
from timm.data.imagenet_info import ImageNetInfo
from tqdm import tqdm

import vizlib

# Hundreds of passes per photo for any parameters, so that these methods are not tested here.
PASS_PER_CHANNEL = ("score-cam", "ablation-cam")


def explain_with_all_methods(model, photo, few_passes):
    """Return the attributions of every method that supports the model, from one forward pass."""
    run = vizlib.run_for_all(model, photo)
    attributions = vizlib.explain_all(model, run=run)
    for name in vizlib.list_methods(model):
        if name not in attributions and name not in PASS_PER_CHANNEL:
            attributions[name] = vizlib.explain(model, photo, name, run=run, **few_passes(name))
    return attributions


def assert_explains(model, photo, few_passes):
    attributions = explain_with_all_methods(model, photo, few_passes)
    assert set(attributions) == set(vizlib.list_methods(model)) - {*PASS_PER_CHANNEL}
    for name, attribution in attributions.items():
        assert attribution.heat.isfinite().all(), name
        assert attribution.heat.any() or any("The map is empty" in note for note in attribution.notes), name
        heat_on_photo = attribution.project_to_photo()
        assert heat_on_photo.shape == (photo.height, photo.width)
        assert np.isfinite(heat_on_photo).mean() == pytest.approx(attribution.geometry.visible_fraction, abs=0.02)


def test_labels_are_in_the_wordnet_order_of_timm(boxed_photos):
    names = ImageNetInfo().label_names()
    assert names == sorted(names)
    assert len({label for _, label, _ in boxed_photos}) > 200
    assert all(0 <= label < 1000 for _, label, _ in boxed_photos)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "deit_tiny_patch16_224"])
def test_accuracy_is_at_least_65_percent_and_every_method_explains_photos(
    name, real_network, boxed_photos, few_passes, capsys
):
    model, photos, num_correct = real_network(name), boxed_photos[::2], 0
    for number, (path, label, _) in enumerate(tqdm(photos, desc=model.name)):
        photo = vizlib.open_image(path)
        num_correct += model.predict(photo, top=1)[0].index == label
        if number % 65 == 0:
            assert_explains(model, photo, few_passes)
    share = num_correct / len(photos)
    with capsys.disabled():
        print(f"\n{model.name}: top-1 {num_correct} of {len(photos)} = {share:.1%}, every 65th explained")
    assert share >= 0.65
