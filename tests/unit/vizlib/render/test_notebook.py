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


def test_a_card_shows_the_overlay_no_larger_than_a_cell(answer):
    (found,) = Page(answer._repr_html_()).every("img")
    shown = picture(found["src"])
    assert found["src"].startswith("data:image/jpeg;")
    assert shown.shape == (160, 480, 3)
    photo, heat = answer.within(480)
    overlay = overlay_heat(photo, heat, signed=answer.signed)
    # A JPEG of noise is not the noise, but nearer to it than to the bare photo.
    far = [np.abs(shown - np.asarray(one, float)).mean() for one in (overlay, photo)]
    assert far[0] < 6 < far[1]


@pytest.mark.parametrize("signed", [False, True])
def test_the_bar_runs_through_the_colours_of_the_map_between_its_raw_values(answer, signed):
    answer = replace(answer, signed=signed)
    html = answer._repr_html_()
    colours = re.findall("#([0-9a-f]{6})", html)
    table = load_colormap(DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP)
    assert [bytes.fromhex(one) for one in (colours[0], colours[-1])] == [bytes(table[0]), bytes(table[-1])]
    assert bytes.fromhex(colours[len(colours) // 2]) in {bytes(table[127]), bytes(table[128])}
    low, high = compute_limits(answer.within(480)[1], signed=signed)
    ends = [float(one.replace("−", "-")) for one in re.findall(r"<span>(.*?)</span>", html)]
    assert ends == pytest.approx([low, 0, high] if signed else [low, high], rel=0.01)


def test_a_card_says_what_the_map_is_of_and_every_note(answer):
    text = Page(answer._repr_html_()).text()
    assert "saliency for dog against class 0" in text
    assert answer.notes
    assert all(note in text for note in answer.notes)
    assert not Page(replace(answer, notes=())._repr_html_()).every("li")


def test_what_a_label_or_a_note_holds_stays_text(answer):
    bad = "<script>alert(1)</script> & \"'"
    page = Page(replace(answer, label=bad, model=bad, notes=(bad,))._repr_html_())
    assert not page.every("script")
    assert page.text().count(bad) == 3
    assert page.every("img")[0]["alt"].count(bad) == 2


def test_a_map_without_any_number_has_a_card_too(answer):
    assert Page(replace(answer, heat=torch.full_like(answer.heat, torch.nan))._repr_html_()).every("img")


@pytest.fixture
def answers():
    model = vizlib.load("resnet18-imagenette")
    photo = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    return vizlib.explain_all(model, photo, target="church")


def test_all_methods_are_shown_side_by_side_each_with_its_name(answers):
    page = Page(answers._repr_html_())
    pictures = page.every("img")
    assert [one["alt"] for one in pictures] == list(answers)
    for one, answer in zip(pictures, answers.values(), strict=True):
        shown = picture(one["src"])
        photo, heat = answer.within(180)
        overlay = overlay_heat(photo, heat, signed=answer.signed)
        assert shown.shape == np.asarray(overlay).shape == (90, 180, 3)
        assert np.abs(shown - np.asarray(overlay, float)).mean() < 6
    assert all(method in page.text() for method in answers)
    assert f"church ({100 * answers['saliency'].probability:.3g} %), resnet18-imagenette" in page.text()


def test_what_is_said_of_all_maps_is_what_holds_for_each(answers):
    (first, *others) = [set(answer.notes) for answer in answers.values()]
    shared = first.intersection(*others)
    own = set().union(first, *others) - shared
    answers["saliency"] = replace(answers["saliency"], notes=(*answers["saliency"].notes, "Of this one alone."))
    page = Page(answers._repr_html_())
    assert len(page.every("li")) == len(shared) > 0
    assert all(note in page.text() for note in shared)
    assert not any(note in page.text() for note in own | {"Of this one alone."})


def test_all_maps_are_a_dictionary_and_none_of_them_shows_nothing(answers):
    assert isinstance(answers, dict)
    assert AttributionDict()._repr_html_() is None
    assert repr(answers).startswith("{'saliency': <Attribution saliency for church (")


def test_a_map_and_a_run_are_one_line_where_only_text_is_shown(answer):
    low, high = (f"{value:.3g}".replace("-", "−") for value in (answer.heat.min(), answer.heat.max()))
    assert repr(answer) == f"<Attribution {answer._title}: 32 × 32 values from {low} to {high}>"
    run = vizlib.run_for_all(vizlib.load("resnet18-imagenette"), answer.photo)
    assert repr(run) == "<Run of a photo of 900 × 300: 10 logits, 4 activations, 0 attention layers>"


def test_kernels_are_shown_on_one_scale_to_the_pixel():
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


def test_contributions_are_one_line_of_text(answer):
    model = vizlib.load("resnet18-imagenette")
    found = vizlib.contributions(model, answer.photo, "church", "tench")
    logits = model.logits(model.tensor(answer.photo))[0]
    lead = f"{logits[4] - logits[0]:.3g}".replace("-", "−")
    said = f"<Contributions to church against class 0: logit {lead}; channels of 4 layers, heads of 0>"
    assert (model.labels[4], model.labels[0], repr(found)) == ("church", "tench", said)


def test_a_card_brings_no_style_sheet_and_no_colour_of_text(answer):
    page = Page(answer._repr_html_())
    assert not page.every("style")
    assert not any(re.search(r"(^|;)\s*color:", one.get("style", "")) for _, one in page.found)


def test_a_card_is_as_wide_as_its_title_needs_and_its_bar_as_wide_as_the_picture():
    card = notebook.render_attribution(Image.new("RGB", (64, 64)), "A long title", (), limits=(0.0, 1.0), signed=False)
    widths = [int(one) for one in re.findall(r"max-width:(\d+)px", card)]
    assert widths == [480, 64]
