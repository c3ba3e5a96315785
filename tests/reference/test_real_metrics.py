"""What metrics say of real networks on photos with boxes: published orders of methods, and where they do not hold.

`pytest -m slow -s tests/reference/test_real_metrics.py` prints the measured values.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import ONE_PASS
from vizlib.metrics import measure
from vizlib.metrics.method_groups import measure_methods_together

pytestmark = pytest.mark.slow
EVERY = 43  # of the 260 photos: 7 photos


def explain_photos(model, boxed_photos):
    """Yield the attributions of all methods of one pass, and guided backpropagation, for some photos with boxes."""
    for path, label, boxes in boxed_photos[::EVERY]:
        attributions = dict(vizlib.explain_all(model, path, target=label))
        if "guided-backprop" in vizlib.list_methods(model) and "guided-backprop" not in attributions:
            attributions["guided-backprop"] = vizlib.explain(model, path, "guided-backprop", target=label)
        yield attributions, boxes


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_randomised_classifier_keeps_guided_backpropagation_and_changes_grad_cam(
    name, real_network, boxed_photos, capsys
):
    """As Adebayo et al. 2018 found; here by the rank correlation of absolute values."""
    model, similarities = real_network(name), defaultdict(list)
    for attributions, _ in explain_photos(model, boxed_photos):
        chosen = {key: attributions[key] for key in ("guided-backprop", "grad-cam", "saliency")}
        measured = measure_methods_together(model, chosen, "parameter-randomisation", order="independent", levels=1)
        for method, measurement in measured.items():
            similarities[method].append(dict(measurement.curve)["fc"])
    means = {method: np.mean(values) for method, values in similarities.items()}
    with capsys.disabled():
        print(
            f"\n{model.name}: similarity with a random classifier",
            {key: round(value, 3) for key, value in means.items()},
        )
    assert means["guided-backprop"] > 0.8
    assert means["grad-cam"] < 0.5


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_patch16_224"])
def test_energy_in_the_boxes_is_above_that_of_random_maps(name, real_network, boxed_photos, capsys):
    model, energies = real_network(name), defaultdict(list)
    for attributions, boxes in explain_photos(model, boxed_photos):
        ends = [(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in boxes]  # the boxes hold their last row and column
        for method, attribution in attributions.items():
            if METHODS[method].cost == ONE_PASS:
                found = measure(model, attribution, "energy-pointing-game", boxes=ends, random_maps=5)
                energies[method].append(found.value)
                energies["a random map"].append(np.mean(found.random_values))
                energies["a centred Gaussian"].append(found.references["centred-gaussian"])
    means = {method: float(np.nanmean(values)) for method, values in energies.items()}
    with capsys.disabled():
        print(f"\n{model.name}: energy in the boxes", {key: round(value, 3) for key, value in means.items()})
    assert means["a centred Gaussian"] > means["a random map"]  # objects are mostly in the middle
    best = "grad-cam" if name == "resnet18" else "attention-relevance"
    assert means[best] > means["a random map"] + 0.05
