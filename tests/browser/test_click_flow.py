"""Upload a photo and select a class, a method, a patch, a channel and another model: the pictures follow."""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import pytest
from cell_boxes import compute_cell_box

import vizlib

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
OVERFLOWING = """width => [...document.querySelectorAll('#page *')]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > width + 1)
    .filter((node) => !node.closest(".visually-hidden"))  // by which gradio measures its tabs
    .filter((node) => !node.parentElement.closest(".viz-table-frame"))  // the wide table scrolls in its frame
    .map((node) => node.outerHTML.slice(0, 80))"""
WHY, GRID, CHANNEL = "#why-heatmap", "#attention-patches", "#inside-heatmap"


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session("?__theme=light")
    yield session
    session.page.close()


# The tests below share one session and run in this order.


def test_page_opens_with_an_explained_example(session):
    assert session.page.locator("#bars button").count() == 5
    assert session.page.locator("h1").count() == 1
    assert session.page.locator("#why-caption").inner_text().strip()


def test_uploaded_photo_is_drawn_as_by_the_library(session, photo):
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(photo)
    session.page.wait_for_function("() => document.querySelectorAll('#bars button').length === 5")
    session.settle()
    model, image = vizlib.load(RESNET), vizlib.open_image(photo)
    best = model.predict(image)[0]
    assert session.get_target() == best.index
    assert best.label in session.page.locator("#why-caption h2").inner_text()
    expected = np.asarray(vizlib.explain(model, image, method="grad-cam").overlay(), dtype=float)
    drawn = np.asarray(session.read_canvas(), dtype=float)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).mean() < 2.5  # of 255: the page draws on a JPEG of the photo


def test_click_on_a_class_makes_it_the_target(session, photo):
    session.wait_for_change(WHY, lambda: session.page.locator("#bars button").nth(1).click())
    second = vizlib.load(RESNET).predict(vizlib.open_image(photo))[1]
    assert session.get_target() == second.index
    assert second.label in session.page.locator("#why-caption h2").inner_text()


def test_class_from_the_menu_is_added_to_the_bars(session):
    last = vizlib.load(RESNET).labels[0]
    session.wait_for_change(WHY, lambda: session.choose_option("#classes", last))
    assert session.get_target() == 0
    assert session.page.locator("#why-heatmap canvas").get_attribute("aria-label").startswith(f"grad-cam for {last}")


@pytest.mark.parametrize(
    ("selector", "other_class"), [("#bars button >> nth=2", 3), ("#why-methods [data-key=layer-cam]", 5)]
)
def test_click_takes_effect_although_the_page_is_redrawn_before_it_ends(session, selector, other_class):
    button = session.page.locator(selector)
    button.hover()
    session.page.mouse.down()
    session.wait_for_change(WHY, lambda: session.emit_choice("event-queue", target=other_class))
    assert button.get_attribute("aria-pressed") == "false"
    session.wait_for_change(WHY, session.page.mouse.up)
    assert button.get_attribute("aria-pressed") == "true"


def test_method_and_parameter_change_the_map(session):
    session.wait_for_change(WHY, lambda: session.page.locator("#why-methods [data-key=saliency]").click())
    session.wait_for_change(
        WHY, lambda: session.page.locator("#why-parameters select").first.select_option(label="norm")
    )
    session.wait_for_change(WHY, lambda: session.page.locator("#why-methods [data-key=guided-backprop]").click())


def test_opacity_and_hover_send_no_request(session):
    num_requests = len(session.requests)
    session.wait_for_change(WHY, lambda: session.page.locator(f"{WHY} input[type=range]").first.fill("20"))
    session.page.locator(f"{WHY} canvas").hover()
    assert session.page.locator(f"{WHY} output").inner_text().startswith("here ")
    assert len(session.requests) == num_requests


def test_channel_and_layer_change_the_inside_tab(session):
    session.open_tab("Inside")
    session.wait_for_change(CHANNEL, lambda: session.page.locator("#inside-channels button").nth(4).click())
    for layer in ("layer2", "layer2.0", "layer2.0.conv1"):
        session.wait_for_change(
            CHANNEL, lambda layer=layer: session.page.locator(f"#inside-tree [data-layer='{layer}']").click()
        )
    assert "layer2.0.conv1" in session.page.locator("#inside-caption").inner_text()


def test_attention_tab_of_a_cnn_explains_why_it_is_empty(session):
    session.open_tab("Attention")
    assert (
        "is a convolutional network without attention layers" in session.page.locator("#attention-caption").inner_text()
    )
    assert not session.page.locator(GRID + " canvas").first.is_visible()


def test_another_model_changes_all_pictures(session):
    kernels = session.page.locator("#inside-kernels button").count()
    session.wait_for_change(CHANNEL, lambda: session.wait_for_change(WHY, lambda: session.choose_option("#model", VIT)))
    session.page.locator(GRID + " canvas").first.wait_for()
    session.page.locator("#inside-position-similarity canvas").first.wait_for(state="attached")
    assert (kernels, session.page.locator("#inside-kernels button").count()) == (64, 192)


def test_click_on_a_patch_shows_its_attention_without_a_request(session, photo):
    num_requests = len(session.requests)
    canvas = session.page.locator(GRID + " canvas").first
    model, image = vizlib.load(VIT), vizlib.open_image(photo)
    geometry = model.preprocessing.geometry(image)
    assert model.tokens is not None
    top, left, bottom, right = compute_cell_box(geometry, 3, 6, model.tokens.grid)
    canvas_box = canvas.bounding_box()
    share = canvas_box["width"] / image.width
    session.wait_for_change(
        GRID, lambda: canvas.click(position={"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share})
    )
    heat = vizlib.explain(model, image, method="raw-attention", query=(3, 6)).heat
    others = heat.flatten().clone()
    columns = model.tokens.grid[1]
    others[3 * columns + 6] = -1  # the sentence names another patch than its own
    row, column = divmod(int(others.argmax()), columns)
    text = session.page.locator(GRID + " .viz-description").inner_text()
    assert text.startswith("The patch in row 4, column 7 attends most to ")
    assert f"row {row + 1}, column {column + 1} (" in text
    assert float(text.split("(")[1].split(")")[0]) == pytest.approx(others.max().item(), rel=0.02)
    assert len(session.requests) == num_requests


def test_keyboard_moves_the_patch_and_the_layer(session):
    stage = session.page.locator(GRID + " .viz-grid")
    stage.press("Escape")
    session.wait_for_change(GRID, lambda: stage.press("ArrowRight"))
    assert "row 4, column 8" in session.page.locator(GRID + " .viz-description").inner_text()
    session.wait_for_change(GRID, lambda: stage.press("["))
    assert "layer 11" in session.page.locator(GRID + " .viz-description").inner_text()
    session.wait_for_change(
        GRID, lambda: session.page.locator(GRID + " .viz-multiples").last.locator("button").nth(2).click()
    )
    assert "head 2" in session.page.locator(GRID + " .viz-description").inner_text()


def test_model_tab_shows_accuracy_and_training_curves(session):
    session.open_tab("Model")
    entry = next(entry for entry in vizlib.list_models() if entry.name == VIT)
    assert session.page.locator("#model-card .viz-figures strong").first.inner_text() == f"{entry.accuracy:.1f}\u00a0%"
    assert session.page.locator("#model-history path.viz-curve").count() == 2
    chart = session.page.locator("#model-history svg")
    history = vizlib.training_history(VIT)
    assert f"validation from {history['val_top1'][0]:.1f}" in chart.get_attribute("aria-label")
    chart.press("ArrowLeft")  # reads the last epoch
    text = session.page.locator("#model-history output").inner_text()
    assert text.startswith(f"epoch {history['epoch'][-1]:.0f}: validation {history['val_top1'][-1]:.1f}")


def test_file_that_is_no_photo_is_rejected_in_one_sentence(session, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    session.open_tab("Why")
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(path)
    sentence = "The picture is text, not an image, expected a photo as JPEG, PNG, WebP, GIF, BMP or TIFF."
    session.page.get_by_text(sentence, exact=True).first.wait_for()
    session.settle()
    session.wait_for_change(WHY, lambda: session.page.locator("#examples button").nth(2).click())


def test_session_had_only_local_requests_and_no_errors(session):
    hosts = {urlsplit(request).hostname for request in session.requests if urlsplit(request).scheme.startswith("http")}
    assert hosts == {"127.0.0.1"}
    assert session.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_fits_a_phone(open_session, theme):
    session = open_session(f"?__theme={theme}", width=390, height=844)
    for tab in ("Why", "Attention", "Inside", "Compare", "Model", "Use in code"):
        session.open_tab(tab)
        assert session.page.evaluate(OVERFLOWING, 390) == []
    session.page.close()
