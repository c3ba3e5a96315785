"""A person uploads a photo, clicks a class, a method, a patch, a channel, another model: each picture changes."""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import pytest
from cell_boxes import compute_cell_box

import vizlib

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
BEYOND = """width => [...document.querySelectorAll('#page *')]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > width + 1)
    .filter((node) => !node.closest(".visually-hidden"))  // by which gradio measures its tabs
    .map((node) => node.outerHTML.slice(0, 80))"""
WHY, GRID, CHANNEL = "#why-heatmap", "#attention-patches", "#inside-heatmap"


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session("?__theme=light")
    yield session
    session.page.close()


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_the_page_opens_with_an_example_already_explained(session):
    assert session.page.locator("#bars button").count() == 5
    assert session.page.locator("h1").count() == 1
    assert session.page.locator("#why-caption").inner_text().strip()


def test_an_uploaded_photo_is_drawn_as_the_library_draws_it(session, photo):
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(photo)
    session.page.wait_for_function("() => document.querySelectorAll('#bars button').length === 5")
    session.settle()
    model, image = vizlib.load(RESNET), vizlib.open_image(photo)
    best = model.predict(image)[0]
    assert session.get_target() == best.index
    assert best.label in session.page.locator("#why-caption h2").inner_text()
    theirs = np.asarray(vizlib.explain(model, image, method="grad-cam").overlay(), dtype=float)
    ours = np.asarray(session.read_canvas(), dtype=float)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 2.5  # of 255: the page draws on a JPEG of the photo


def test_a_click_on_a_class_asks_about_that_class(session, photo):
    session.wait_for_change(WHY, lambda: session.page.locator("#bars button").nth(1).click())
    second = vizlib.load(RESNET).predict(vizlib.open_image(photo))[1]
    assert session.get_target() == second.index
    assert second.label in session.page.locator("#why-caption h2").inner_text()


def test_another_class_from_the_menu_is_added_to_the_bars(session):
    last = vizlib.load(RESNET).labels[0]
    session.wait_for_change(WHY, lambda: session.choose_option("#classes", last))
    assert session.get_target() == 0
    assert session.page.locator("#why-heatmap canvas").get_attribute("aria-label").startswith(f"grad-cam for {last}")


@pytest.mark.parametrize(
    ("pressed", "meanwhile"), [("#bars button >> nth=2", 3), ("#why-methods [data-key=layer-cam]", 5)]
)
def test_a_click_outlives_what_is_drawn_anew_before_it_is_through(session, pressed, meanwhile):
    button = session.page.locator(pressed)
    button.hover()
    session.page.mouse.down()
    session.wait_for_change(WHY, lambda: session.emit_choice("event-queue", target=meanwhile))
    assert button.get_attribute("aria-pressed") == "false"
    session.wait_for_change(WHY, session.page.mouse.up)
    assert button.get_attribute("aria-pressed") == "true"


def test_a_click_on_a_method_and_a_turned_knob_change_the_map(session):
    session.wait_for_change(WHY, lambda: session.page.locator("#why-methods [data-key=saliency]").click())
    session.wait_for_change(
        WHY, lambda: session.page.locator("#why-parameters select").first.select_option(label="norm")
    )
    session.wait_for_change(WHY, lambda: session.page.locator("#why-methods [data-key=guided-backprop]").click())


def test_the_opacity_and_the_value_under_the_mouse_ask_nothing_of_the_server(session):
    asked = len(session.requests)
    session.wait_for_change(WHY, lambda: session.page.locator(f"{WHY} input[type=range]").first.fill("20"))
    session.page.locator(f"{WHY} canvas").hover()
    assert session.page.locator(f"{WHY} output").inner_text().startswith("here ")
    assert len(session.requests) == asked


def test_a_channel_and_a_layer_change_what_inside_shows(session):
    session.open_tab("Inside")
    session.wait_for_change(CHANNEL, lambda: session.page.locator("#inside-channels button").nth(4).click())
    for part in ("layer2", "layer2.0", "layer2.0.conv1"):
        session.wait_for_change(
            CHANNEL, lambda part=part: session.page.locator(f"#inside-tree [data-layer='{part}']").click()
        )
    assert "layer2.0.conv1" in session.page.locator("#inside-caption").inner_text()


def test_a_convolutional_network_says_why_it_has_no_attention(session):
    session.open_tab("Attention")
    assert "built of convolutions" in session.page.locator("#attention-caption").inner_text()
    assert not session.page.locator(GRID + " canvas").first.is_visible()


def test_another_model_changes_every_picture(session):
    kernels = session.page.locator("#inside-kernels button").count()
    session.wait_for_change(CHANNEL, lambda: session.wait_for_change(WHY, lambda: session.choose_option("#model", VIT)))
    session.page.locator(GRID + " canvas").first.wait_for()
    session.page.locator("#inside-position-similarity canvas").first.wait_for(state="attached")
    assert (kernels, session.page.locator("#inside-kernels button").count()) == (64, 192)


def test_a_click_on_a_patch_shows_its_attention_without_asking_the_server(session, photo):
    asked = len(session.requests)
    canvas = session.page.locator(GRID + " canvas").first
    model, image = vizlib.load(VIT), vizlib.open_image(photo)
    geometry = model.preprocessing.geometry(image)
    top, left, bottom, right = compute_cell_box(geometry, 3, 6, model.tokens.grid)
    shown = canvas.bounding_box()
    share = shown["width"] / image.width
    session.wait_for_change(
        GRID, lambda: canvas.click(position={"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share})
    )
    heat = vizlib.explain(model, image, method="raw-attention", query=(3, 6)).heat
    others = heat.flatten().clone()
    columns = model.tokens.grid[1]
    others[3 * columns + 6] = -1  # the sentence names the other patch it looks at most
    row, column = divmod(int(others.argmax()), columns)
    said = session.page.locator(GRID + " .viz-description").inner_text()
    assert said.startswith("The patch in row 4, column 7 attends most to ")
    assert f"row {row + 1}, column {column + 1} (" in said
    assert float(said.split("(")[1].split(")")[0]) == pytest.approx(others.max().item(), rel=0.02)
    assert len(session.requests) == asked


def test_the_keyboard_moves_the_patch_and_the_layer(session):
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


def test_the_model_page_says_how_good_the_model_is_and_draws_how_it_learned(session):
    session.open_tab("Model")
    entry = next(entry for entry in vizlib.list_models() if entry.name == VIT)
    assert session.page.locator("#model-card .viz-figures strong").first.inner_text() == f"{entry.accuracy:.1f}\u00a0%"
    assert session.page.locator("#model-history path.viz-curve").count() == 2
    chart = session.page.locator("#model-history svg")
    history = vizlib.training_history(VIT)
    assert f"validation from {history['val_top1'][0]:.1f}" in chart.get_attribute("aria-label")
    chart.press("ArrowLeft")  # reads the last epoch
    said = session.page.locator("#model-history output").inner_text()
    assert said.startswith(f"epoch {history['epoch'][-1]:.0f}: validation {history['val_top1'][-1]:.1f}")


def test_a_file_that_is_no_photo_is_refused_in_one_sentence(session, tmp_path):
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


def test_no_request_left_the_machine_and_nothing_complained(session):
    hosts = {urlsplit(request).hostname for request in session.requests if urlsplit(request).scheme.startswith("http")}
    assert hosts == {"127.0.0.1"}
    assert session.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(open_session, theme):
    session = open_session(f"?__theme={theme}", width=390, height=844)
    for tab in ("Why", "Attention", "Inside", "Compare", "Model", "Use in code"):
        session.open_tab(tab)
        assert session.page.evaluate(BEYOND, 390) == []
    session.page.close()
