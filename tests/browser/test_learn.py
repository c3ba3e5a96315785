"""The lessons on an uploaded photo, with both models, in two languages."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import spearmanr

import vizlib
from dashboard.components.captions import format_correlation
from dashboard.i18n.translate import get_page_texts
from dashboard.tabs import learn
from dashboard.tabs.lessons.layer_lessons import format_number
from vizlib.core.text import format_percent
from vizlib.metrics import deletion
from vizlib.models.randomised_copy import iterate_randomised_copies
from vizlib.render.color_scale import compute_limits
from vizlib.render.overlay import overlay_heat

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HERE = "#learn .viz-lesson"
compute_spearman: Any = spearmanr


def read_step(session, step: int) -> str:
    """Wait for a step and return its text."""
    session.page.wait_for_selector(f"{HERE}[data-step='{step}']:not([aria-busy])")
    return session.get_text(HERE).replace("\xa0", " ")


def next_step(session, step: int) -> str:
    session.page.locator(f"{HERE} .viz-primary-button").click()
    return read_step(session, step)


def read_pixels(session, place: int) -> np.ndarray:
    address = session.page.locator(f"{HERE} canvas").nth(place).evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"), dtype=float)


@pytest.mark.parametrize("name", [RESNET, VIT])
def test_eleven_steps_show_the_librarys_numbers_for_an_uploaded_photo(open_checked_session, photo, name):
    session = open_checked_session(f"?m={name}&img=ex:cheetah")
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.wait_for_change("#why-heatmap", lambda: session.upload(photo))
    session.open_tab("Learn")
    model, image = vizlib.load(name), vizlib.open_image(photo)
    first, second = model.predict(image, top=2)
    target, contrast = first.index, second.index

    def explain(method: str, target: int = target, **parameters) -> torch.Tensor:
        return vizlib.explain(model, image, method=method, target=target, **parameters).heat

    text = read_step(session, 0)
    layer = model.stages[0]
    output = model.run(image, layers=[layer]).activations[layer]
    assert f"{output.numel():,} numbers, a tensor of shape {' × '.join(map(str, output.shape))}" in text
    assert f'network.get_submodule("{layer}")' in text

    text = next_step(session, 1)
    logit, probability = explain("saliency").max().item(), explain("saliency", score="probability").max().item()
    assert f"For {first.label}, p is {first.probability:.3f}" in text
    assert f"Gradient of the logit: up to {format_number(logit)}" in text
    assert f"up to {format_number(probability)}" in text
    assert format_percent(probability / logit) in text

    text = next_step(session, 2)
    kernels = vizlib.kernels(model)
    convolution: Any = model.module.get_submodule(kernels.layer)
    outputs = F.conv2d(model.tensor(image), kernels.weights, convolution.bias, convolution.stride, convolution.padding)[
        0
    ]
    output = outputs[outputs.flatten(1).std(1).argmax()]
    assert f"from {format_number(output.min().item())} to {format_number(output.max().item())}" in text
    values = np.abs(np.frombuffer(output.detach().numpy().tobytes(), "<f4"))
    assert format_number(float(np.percentile(values, 99.5))) in text  # the end of the colour bar

    text = next_step(session, 3)
    for layer in (model.stages[0], model.stages[-1]):
        maps = model.spatial_map(model.run(image, layers=[layer]).activations[layer])
        assert maps is not None
        assert f"{layer}, {maps.shape[1]} × {maps.shape[2]}: channel" in text

    text = next_step(session, 4)
    for method in ("saliency", "grad-cam", *(["guided-backprop"] if name == RESNET else [])):
        pair = [explain(method, index).flatten() for index in (target, contrast)]
        assert format_correlation(np.corrcoef(pair[0], pair[1])[0, 1]) in text

    text = next_step(session, 5)
    if name == RESNET:
        assert "layer1: a window 43 pixels wide" in text
        assert "layer2: a window 99 pixels wide" in text
    else:
        similar = kernels.position_similarity
        assert similar is not None
        assert f"of {similar[4, 4, 13, 13]:.2f} with the far corner".replace("-", "−") in text
        assert "14 × 14 patches of 16 × 16 pixels" in text

    text = next_step(session, 6)
    why = vizlib.explain(model, image, method="grad-cam" if name == RESNET else "attention-relevance", target=target)
    left = deletion(model, why, steps=5).score[1].item()
    assert f"{format_percent(first.probability or 0)} → {format_percent(left)}" in text

    text = next_step(session, 7)
    sentence = r"more than (\d+) of 255 steps. But the prediction changed from ([^,]+), .*?, to ([^,]+),"
    change = re.search(sentence, text)
    assert change is not None
    levels, before, after = change.groups()
    assert (levels, before) == ("2", first.label)
    assert after != first.label
    assert (
        np.abs(read_pixels(session, 0) - read_pixels(session, 1)).max() > 20
    )  # the maps differ although the photos hardly do

    text = next_step(session, 8)
    trained = explain("saliency").abs().flatten()
    levels = list(iterate_randomised_copies(model, cascading=True, seed=0))
    before = read_pixels(session, 2)
    for frame in (1, len(levels)):
        session.page.locator(f"{HERE} .viz-frames input").fill(str(frame))
        session.wait_until(f"() => document.querySelector('#learn .viz-lesson').dataset.frame === '{frame}'")
        level, copy = levels[frame - 1]
        assert session.page.locator(f"{HERE} .viz-frames output").inner_text() == (
            level.name or get_page_texts("en")["learn.own"]
        )
        heat = vizlib.explain(copy, image, "saliency", target).heat.abs().flatten()
        value = format_correlation(compute_spearman(trained, heat)[0])
        assert f"saliency: correlation {value}" in session.get_text(HERE)
    assert np.abs(read_pixels(session, 2) - before).max() > 20

    text = next_step(session, 9)
    products = session.page.locator(f"{HERE} .viz-product")
    assert [text.split() for text in products.all_inner_texts()] == [["36", "81"], ["−12", "−8"]]
    before = read_pixels(session, 0)
    session.page.locator(f"{HERE} .viz-weight input").nth(1).fill("-1.5")
    session.wait_until("() => document.querySelector('#learn .viz-lesson').dataset.weights === '1,-1.5'")
    assert [text.split() for text in products.all_inner_texts()] == [["36", "−121.5"], ["−12", "12"]]
    assert np.abs(read_pixels(session, 0) - before).max() > 20

    text = next_step(session, 10)
    layer = {RESNET: "layer4.1.bn1", VIT: "blocks.11.mlp.fc1"}[name]
    values = model.run(image, layers=[layer]).activations[layer]
    assert (
        f"the output of {layer}, {values.numel():,} numbers, of which {int((values > 0).sum()):,} are positive" in text
    )
    assert "takes 1 positional argument but 2 were given" in text
    assert session.page.locator(f"{HERE} .viz-primary-button").is_hidden()


def test_step_draws_the_map_in_the_librarys_colours(open_checked_session, tower):
    session = open_checked_session(f"?m={VIT}&img=ex:tower&v=learn")
    read_step(session, 0)
    session.page.locator(f"{HERE} .viz-dot").nth(6).click()
    read_step(session, 6)
    model = vizlib.load(VIT)
    why = vizlib.explain(model, tower, method="attention-relevance")
    model_input = model.preprocessing.denormalise(model.tensor(tower))
    large = model_input.resize((448, 448), Image.Resampling.BILINEAR)
    heat = why.heat.numpy().repeat(32, 0).repeat(32, 1)
    limits = compute_limits(why.heat.numpy(), signed=False)
    expected = np.asarray(overlay_heat(large, heat, opacity=0.8, limits=limits), dtype=float)
    drawn = read_pixels(session, 1)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).mean() < 4


def test_step_is_computed_only_while_visible(open_checked_session):
    session = open_checked_session("?img=ex:tower")
    current_step = f"document.querySelector('{HERE}')?.dataset.step"
    before = len(session.calls)
    session.wait_for_change("#why-heatmap", lambda: session.page.locator("#bars button").nth(1).click())
    num_calls = len(session.calls) - before
    assert session.page.evaluate(current_step) is None
    session.open_tab("Learn")
    first = read_step(session, 0)
    next_step(session, 1)
    session.open_tab("Why")
    before = len(session.calls)
    session.wait_for_change("#why-heatmap", lambda: session.page.locator("#bars button").nth(0).click())
    assert len(session.calls) - before == num_calls
    session.open_tab("Learn")
    assert "Why the logit" in read_step(session, 1)
    session.page.locator(f"{HERE} .viz-previous").click()
    assert read_step(session, 0) == first


def test_step_follows_class_and_model(open_checked_session, cheetah):
    session = open_checked_session(f"?m={RESNET}&img=ex:cheetah&v=learn")
    read_step(session, 0)
    session.page.locator(f"{HERE} .viz-dot").nth(4).click()
    read_step(session, 4)
    names = [row.label for row in vizlib.load(RESNET).predict(cheetah, top=3)]
    assert f"Between {names[0]} and {names[1]}" in session.get_text(HERE)
    session.page.locator("#bars button").nth(2).click()
    session.wait_until(f"document.querySelector('{HERE}').innerText.includes('Between {names[2]} and {names[0]}')")
    session.choose_option("#model", VIT)
    session.wait_until(f"document.querySelector('{HERE}').innerText.includes('which this model does not have')")
    assert session.page.locator(f"{HERE} .viz-lesson-link").nth(1).inner_text() == f"Show with {RESNET}"


def test_button_opens_the_tab_with_the_method_selected(open_checked_session):
    session = open_checked_session(f"?m={RESNET}&img=ex:tower&v=learn")
    read_step(session, 0)
    session.page.locator(f"{HERE} .viz-dot").nth(4).click()
    read_step(session, 4)
    session.page.get_by_role("button", name="Open the Why tab").click()
    session.wait_until("document.querySelector('#why-methods [aria-pressed=true]')?.dataset.key === 'guided-backprop'")
    session.settle()
    assert session.page.get_by_role("tab", name="Why").get_attribute("aria-selected") == "true"
    assert "v=why" in session.page.url
    assert session.page.locator("#why-heatmap canvas").is_visible()
    session.open_tab("Learn")
    session.page.locator(f"{HERE} .viz-dot").nth(0).click()
    read_step(session, 0)
    session.page.get_by_role("button", name="Open the Inside tab").click()
    session.settle()
    assert session.page.get_by_role("tab", name="Inside").get_attribute("aria-selected") == "true"


def test_button_switches_the_model_of_all_tabs(open_checked_session):
    session = open_checked_session(f"?m={RESNET}&img=ex:tower&v=learn")
    read_step(session, 0)
    session.page.locator(f"{HERE} .viz-dot").nth(5).click()
    assert "layer1: a window 43 pixels wide" in read_step(session, 5)
    session.page.get_by_role("button", name=f"Show with {VIT}").click()
    session.wait_until(f"document.querySelector('{HERE} h2').textContent.includes('sequence of patches')")
    session.settle()
    assert session.page.locator("#model input").input_value().startswith(VIT)
    assert f"m={VIT}" in session.page.url
    session.open_tab("Why")
    assert VIT in session.get_text("#why-caption")


def test_keyboard_changes_steps_and_focuses_the_heading(open_checked_session):
    session = open_checked_session("?img=ex:tower&v=learn")
    read_step(session, 0)
    session.page.locator(f"{HERE} .viz-primary-button").focus()
    session.page.keyboard.press("Enter")
    read_step(session, 1)
    assert session.page.evaluate("document.activeElement.tagName") == "H2"
    session.page.locator(f"{HERE} .viz-dot").nth(1).focus()
    session.page.keyboard.press("Tab")
    session.page.keyboard.press("Space")
    read_step(session, 2)
    current = "document.activeElement.getAttribute('aria-current')"
    assert session.page.evaluate(current) == "step"
    assert session.page.locator(f"{HERE} [aria-current=step]").count() == 1
    pictures = session.page.locator(f"{HERE} :is(canvas, img)")
    assert all(pictures.evaluate_all("nodes => nodes.map((node) => node.ariaLabel || node.alt)"))


@pytest.mark.parametrize(("locale", "language"), [("ko-KR", "ko"), ("en-US", "en"), ("fr-FR", "en")])
def test_page_uses_the_language_of_the_browser(open_checked_session, locale, language):
    session = open_checked_session(f"?m={VIT}&img=ex:tower&v=learn", locale=locale)
    table = get_page_texts(language)
    text = read_step(session, 0)
    assert table["learn.hook.title"] in text
    assert table["learn.hook.code"] in text
    assert session.get_text("h1") == table["page.title"]
    assert session.page.locator("h1").count() == 1
    assert session.get_text(".viz-heading h2") == table["page.predictions"]
    assert session.get_text("#model").startswith(table["page.model"])
    tabs = [text.strip() for text in session.page.locator("[role=tab]:visible").all_inner_texts()]
    assert tabs == [
        table[f"page.tab.{name}"] for name in ("why", "attention", "inside", "compare", "learn", "model", "use-in-code")
    ]
    assert session.page.locator(".viz-outline-button").all_inner_texts() == [
        table["script.export"],
        table["script.copy"],
    ]
    session.page.get_by_role("tab", name=table["page.tab.why"], exact=True).click()
    session.settle()
    controls = session.get_text("#why-heatmap .viz-controls")
    assert all(table[f"script.{key}"] in controls for key in ("opacity", "strongest", "colours"))
    assert session.get_text("#why-methods h2") == table["why.other-ways"]
    assert ("않" in text) is (language == "ko")


def test_lesson_steps_fit_a_phone(open_checked_session):
    session = open_checked_session("?img=ex:tower&v=learn", width=390, height=844)
    session.page.locator("#learn").scroll_into_view_if_needed()
    overflowing = """() => [...document.querySelectorAll('#learn *')]
        .filter((node) => node.checkVisibility() && !node.closest('pre') && node.getBoundingClientRect().right > 391)
        .map((node) => node.outerHTML.slice(0, 90))"""
    for step in range(len(learn.STEPS)):
        read_step(session, 0) if step == 0 else next_step(session, step)
        assert session.page.evaluate(overflowing) == []
    assert session.page.evaluate("document.querySelector('#learn .viz-lesson').getBoundingClientRect().top") >= -1
