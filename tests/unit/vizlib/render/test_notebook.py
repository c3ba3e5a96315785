"""A map that is the last line of a notebook's cell shows itself, and says in one line what it is elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from html_pages import Page, picture
from PIL import Image
from torch import nn

import vizlib
from vizlib.attribution.result import AttributionDict
from vizlib.render import notebook
from vizlib.render.color_scale import DIVERGING_COLORMAP, SEQUENTIAL_COLORMAP, compute_limits, load_colormap
from vizlib.render.overlay import overlay_heat


@pytest.fixture
def answer():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model = vizlib.wrap(network.eval(), preprocessing={"input_size": (3, 32, 32)}, labels=["cat", "dog", "neither"])
    photo = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
    return vizlib.explain(model, photo, "saliency", target="dog", against="cat")


def test_attribution_html_shows_the_overlay_at_notebook_size(answer):
    (found,) = Page(answer._repr_html_()).every("img")
    shown = picture(found["src"])
    assert found["src"].startswith("data:image/jpeg;")
    assert shown.shape == (160, 480, 3)
    photo, heat = answer.resize_with_heat(480)
    overlay = overlay_heat(photo, heat, signed=answer.signed)
    # A JPEG of noise is not the noise, but nearer to it than to the bare photo.
    far = [np.abs(shown - np.asarray(one, float)).mean() for one in (overlay, photo)]
    assert far[0] < 6 < far[1]


@pytest.mark.parametrize("signed", [False, True])
def test_color_bar_has_the_colormap_and_the_limits(answer, signed):
    answer = replace(answer, signed=signed)
    html = answer._repr_html_()
    colours = re.findall("#([0-9a-f]{6})", html)
    table = load_colormap(DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP)
    assert [bytes.fromhex(one) for one in (colours[0], colours[-1])] == [bytes(table[0]), bytes(table[-1])]
    assert bytes.fromhex(colours[len(colours) // 2]) in {bytes(table[127]), bytes(table[128])}
    low, high = compute_limits(answer.resize_with_heat(480)[1], signed=signed)
    ends = [float(one.replace("−", "-")) for one in re.findall(r"<span>(.*?)</span>", html)]
    assert ends == pytest.approx([low, 0, high] if signed else [low, high], rel=0.01)


def test_attribution_html_has_title_and_notes(answer):
    text = Page(answer._repr_html_()).text()
    assert "saliency for dog against class 0" in text
    assert answer.notes
    assert all(note in text for note in answer.notes)
    assert not Page(replace(answer, notes=())._repr_html_()).every("li")


def test_labels_and_notes_are_escaped(answer):
    bad = "<script>alert(1)</script> & \"'"
    page = Page(replace(answer, label=bad, model=bad, notes=(bad,))._repr_html_())
    assert not page.every("script")
    assert page.text().count(bad) == 3
    assert page.every("img")[0]["alt"].count(bad) == 2


def test_map_of_nan_has_html(answer):
    assert Page(replace(answer, heat=torch.full_like(answer.heat, torch.nan))._repr_html_()).every("img")


@pytest.fixture
def answers():
    model = vizlib.load("resnet18-imagenette")
    photo = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    return vizlib.explain_all(model, photo, target="church")


def test_attribution_dict_html_shows_all_methods_with_names(answers):
    page = Page(answers._repr_html_())
    pictures = page.every("img")
    assert [one["alt"] for one in pictures] == list(answers)
    for one, answer in zip(pictures, answers.values(), strict=True):
        shown = picture(one["src"])
        photo, heat = answer.resize_with_heat(180)
        overlay = overlay_heat(photo, heat, signed=answer.signed)
        assert shown.shape == np.asarray(overlay).shape == (90, 180, 3)
        assert np.abs(shown - np.asarray(overlay, float)).mean() < 6
    assert all(method in page.text() for method in answers)
    assert f"church ({100 * answers['saliency'].probability:.3g} %), resnet18-imagenette" in page.text()


def test_attribution_dict_html_shows_only_common_notes(answers):
    (first, *others) = [set(answer.notes) for answer in answers.values()]
    shared = first.intersection(*others)
    own = set().union(first, *others) - shared
    answers["saliency"] = replace(answers["saliency"], notes=(*answers["saliency"].notes, "Of this one alone."))
    page = Page(answers._repr_html_())
    assert len(page.every("li")) == len(shared) > 0
    assert all(note in page.text() for note in shared)
    assert not any(note in page.text() for note in own | {"Of this one alone."})


def test_attribution_dict_is_a_dict_and_an_empty_one_has_no_html(answers):
    assert isinstance(answers, dict)
    assert AttributionDict()._repr_html_() is None
    assert repr(answers).startswith("{'saliency': <Attribution saliency for church (")


def test_repr_of_attribution_and_run_is_one_line(answer):
    low, high = (f"{value:.3g}".replace("-", "−") for value in (answer.heat.min(), answer.heat.max()))
    assert repr(answer) == f"<Attribution {answer._title}: 32 × 32 values from {low} to {high}>"
    run = vizlib.run_for_all(vizlib.load("resnet18-imagenette"), answer.photo)
    assert repr(run) == "<Run of a photo of 900 × 300: 10 logits, 4 activations, 0 attention layers>"


def test_kernels_html_shows_exact_pixels_on_one_scale():
    found = vizlib.kernels(vizlib.load("resnet18-imagenette"))
    page = Page(found._repr_html_())
    (found_picture,) = page.every("img")
    shown = picture(found_picture["src"])
    assert shown.shape == (4 * 30 - 2, 16 * 30 - 2, 4)  # 64 kernels of 7 × 7 pixels, four times as large, gaps of two
    top = found.weights.abs().max()
    for at in (0, 17, 63):
        kernel = ((found.weights[at] / top + 1) / 2 * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        row, column = divmod(at, 16)
        cell = shown[row * 30 : row * 30 + 28, column * 30 : column * 30 + 28, :3]
        assert (cell == kernel.repeat(4, 0).repeat(4, 1)).mean() > 0.99  # but for a value halfway between two
    assert "conv1: 64 of 3 × 7 × 7 weights" in page.text()
    assert repr(found) == "<Kernels conv1: 64 of 3 × 7 × 7 weights>"


def test_repr_of_contributions_is_one_line(answer):
    model = vizlib.load("resnet18-imagenette")
    found = vizlib.contributions(model, answer.photo, "church", "tench")
    logits = model.logits(model.tensor(answer.photo))[0]
    lead = f"{logits[4] - logits[0]:.3g}".replace("-", "−")
    said = f"<Contributions to church against class 0: logit {lead}; channels of 4 layers, heads of 0>"
    assert (model.labels[4], model.labels[0], repr(found)) == ("church", "tench", said)


def test_attribution_html_has_no_style_sheet_and_no_text_color(answer):
    page = Page(answer._repr_html_())
    assert not page.every("style")
    assert not any(re.search(r"(^|;)\s*color:", one.get("style", "")) for _, one in page.found)


def test_attribution_html_limits_the_bar_to_the_image_width():
    card = notebook.render_attribution(Image.new("RGB", (64, 64)), "A long title", (), limits=(0.0, 1.0), signed=False)
    widths = [int(one) for one in re.findall(r"max-width:(\d+)px", card)]
    assert widths == [480, 64]
