"""HTML of results in notebooks, and their one-line `repr`."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from html_pages import Page, decode_image
from PIL import Image
from torch import nn

import vizlib
from vizlib.attribution.result import AttributionDict
from vizlib.render import notebook
from vizlib.render.color_scale import DIVERGING_COLORMAP, SEQUENTIAL_COLORMAP, compute_limits, load_colormap
from vizlib.render.overlay import overlay_heat


@pytest.fixture
def attribution():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model = vizlib.wrap(network.eval(), preprocessing={"input_size": (3, 32, 32)}, labels=["cat", "dog", "neither"])
    photo = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
    return vizlib.explain(model, photo, "saliency", target="dog", against="cat")


def test_attribution_html_shows_the_overlay_at_notebook_size(attribution):
    (result,) = Page(attribution._repr_html_()).find_all("img")
    image = decode_image(result["src"])
    assert result["src"].startswith("data:image/jpeg;")
    assert image.shape == (160, 480, 3)
    photo, heat = attribution.resize_with_heat(480)
    overlay = overlay_heat(photo, heat, signed=attribution.signed)
    # A JPEG of noise differs from it, but less than from the photo without overlay.
    errors = [np.abs(image - np.asarray(row, float)).mean() for row in (overlay, photo)]
    assert errors[0] < 6 < errors[1]


@pytest.mark.parametrize("signed", [False, True])
def test_color_bar_has_the_colormap_and_the_limits(attribution, signed):
    attribution = replace(attribution, signed=signed)
    html = attribution._repr_html_()
    colours = re.findall("#([0-9a-f]{6})", html)
    table = load_colormap(DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP)
    assert [bytes.fromhex(row) for row in (colours[0], colours[-1])] == [bytes(table[0]), bytes(table[-1])]
    assert bytes.fromhex(colours[len(colours) // 2]) in {bytes(table[127]), bytes(table[128])}
    low, high = compute_limits(attribution.resize_with_heat(480)[1], signed=signed)
    ends = [float(row.replace("−", "-")) for row in re.findall(r"<span>(.*?)</span>", html)]
    assert ends == pytest.approx([low, 0, high] if signed else [low, high], rel=0.01)


def test_attribution_html_has_title_and_notes(attribution):
    text = Page(attribution._repr_html_()).text()
    assert "saliency for dog against cat" in text
    assert attribution.notes
    assert all(note in text for note in attribution.notes)
    assert not Page(replace(attribution, notes=())._repr_html_()).find_all("li")


def test_labels_and_notes_are_escaped(attribution):
    bad = "<script>alert(1)</script> & \"'"
    page = Page(replace(attribution, label=bad, model=bad, notes=(bad,))._repr_html_())
    assert not page.find_all("script")
    assert page.text().count(bad) == 3
    assert page.find_all("img")[0]["alt"].count(bad) == 2


def test_map_of_nan_has_html(attribution):
    assert Page(replace(attribution, heat=torch.full_like(attribution.heat, torch.nan))._repr_html_()).find_all("img")


@pytest.fixture
def attributions():
    model = vizlib.load("resnet18-imagenette")
    photo = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    return vizlib.explain_all(model, photo, target="church")


def test_attribution_dict_html_shows_all_methods_with_names(attributions):
    page = Page(attributions._repr_html_())
    pictures = page.find_all("img")
    assert [row["alt"] for row in pictures] == list(attributions)
    for row, attribution in zip(pictures, attributions.values(), strict=True):
        image = decode_image(row["src"])
        photo, heat = attribution.resize_with_heat(180)
        overlay = overlay_heat(photo, heat, signed=attribution.signed)
        assert image.shape == np.asarray(overlay).shape == (90, 180, 3)
        assert np.abs(image - np.asarray(overlay, float)).mean() < 6
    assert all(method in page.text() for method in attributions)
    assert f"church ({100 * attributions['saliency'].probability:.3g} %), resnet18-imagenette" in page.text()


def test_attribution_dict_html_shows_only_common_notes(attributions):
    (first, *others) = [set(attribution.notes) for attribution in attributions.values()]
    shared = first.intersection(*others)
    own = set().union(first, *others) - shared
    attributions["saliency"] = replace(
        attributions["saliency"], notes=(*attributions["saliency"].notes, "Of this one alone.")
    )
    page = Page(attributions._repr_html_())
    assert len(page.find_all("li")) == len(shared) > 0
    assert all(note in page.text() for note in shared)
    assert not any(note in page.text() for note in own | {"Of this one alone."})


def test_attribution_dict_is_a_dict_and_an_empty_one_has_no_html(attributions):
    assert isinstance(attributions, dict)
    assert AttributionDict()._repr_html_() is None
    assert repr(attributions).startswith("{'saliency': <Attribution saliency for church (")


def test_repr_of_attribution_and_run_is_one_line(attribution):
    low, high = (f"{value:.3g}".replace("-", "−") for value in (attribution.heat.min(), attribution.heat.max()))
    assert repr(attribution) == f"<Attribution {attribution._title}: 32 × 32 values from {low} to {high}>"
    run = vizlib.run_for_all(vizlib.load("resnet18-imagenette"), attribution.photo)
    assert repr(run) == "<Run of a photo of 900 × 300: 10 logits, 4 activations, 0 attention layers>"


def test_kernels_html_shows_exact_pixels_on_one_scale():
    result = vizlib.kernels(vizlib.load("resnet18-imagenette"))
    page = Page(result._repr_html_())
    (element,) = page.find_all("img")
    image = decode_image(element["src"])
    assert image.shape == (4 * 30 - 2, 16 * 30 - 2, 4)  # 64 kernels of 7 × 7 pixels, four times as large, gaps of two
    top = result.weights.abs().max()
    for at in (0, 17, 63):
        kernel = ((result.weights[at] / top + 1) / 2 * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        row, column = divmod(at, 16)
        cell = image[row * 30 : row * 30 + 28, column * 30 : column * 30 + 28, :3]
        assert (cell == kernel.repeat(4, 0).repeat(4, 1)).mean() > 0.99  # but for a value halfway between two
    assert "conv1: 64 of 3 × 7 × 7 weights" in page.text()
    assert repr(result) == "<Kernels conv1: 64 of 3 × 7 × 7 weights>"


def test_repr_of_contributions_is_one_line(attribution):
    model = vizlib.load("resnet18-imagenette")
    result = vizlib.contributions(model, attribution.photo, "church", "tench")
    logits = model.logits(model.tensor(attribution.photo))[0]
    lead = f"{logits[4] - logits[0]:.3g}".replace("-", "−")
    text = f"<Contributions to church against tench: logit {lead}; channels of 4 layers, heads of 0>"
    assert (model.labels[4], model.labels[0], repr(result)) == ("church", "tench", text)


def test_attribution_html_has_no_style_sheet_and_no_text_color(attribution):
    page = Page(attribution._repr_html_())
    assert not page.find_all("style")
    assert not any(re.search(r"(^|;)\s*color:", row.get("style", "")) for _, row in page.tags)


def test_attribution_html_limits_the_bar_to_the_image_width():
    card = notebook.render_attribution(Image.new("RGB", (64, 64)), "A long title", (), limits=(0.0, 1.0), signed=False)
    widths = [int(row) for row in re.findall(r"max-width:(\d+)px", card)]
    assert widths == [480, 64]
