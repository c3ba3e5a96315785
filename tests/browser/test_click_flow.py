"""A person uploads a photo, clicks a class, a method, a patch, a channel, another model: each picture changes."""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import pytest

import vizlib

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
BEYOND = """width => [...document.querySelectorAll('#page *')]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > width + 1)
    .filter((node) => !node.closest(".visually-hidden"))  // by which gradio measures its tabs
    .map((node) => node.outerHTML.slice(0, 80))"""
WHY, GRID, CHANNEL = "#why-heat", "#attention-patches", "#inside-heat"


@pytest.fixture(scope="module")
def visit(visiting):
    visit = visiting("?__theme=light")
    yield visit
    visit.page.close()


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_the_page_opens_with_an_example_already_explained(visit):
    assert visit.page.locator("#bars button").count() == 5
    assert visit.page.locator("h1").count() == 1
    assert visit.page.locator("#why-words").inner_text().strip()


def test_an_uploaded_photo_is_drawn_as_the_library_draws_it(visit, photo):
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.settle()
    visit.upload(photo)
    visit.page.wait_for_function("() => document.querySelectorAll('#bars button').length === 5")
    visit.settle()
    model, image = vizlib.load(RESNET), vizlib.open_image(photo)
    best = model.predict(image)[0]
    assert visit.target() == best.index
    assert best.label in visit.page.locator("#why-words h2").inner_text()
    theirs = np.asarray(vizlib.explain(model, image, method="grad-cam").overlay(), dtype=float)
    ours = np.asarray(visit.picture(), dtype=float)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 2.5  # of 255: the page draws on a JPEG of the photo


def test_a_click_on_a_class_asks_about_that_class(visit, photo):
    visit.changes(WHY, lambda: visit.page.locator("#bars button").nth(1).click())
    second = vizlib.load(RESNET).predict(vizlib.open_image(photo))[1]
    assert visit.target() == second.index
    assert second.label in visit.page.locator("#why-words h2").inner_text()


def test_another_class_from_the_menu_is_added_to_the_bars(visit):
    last = vizlib.load(RESNET).labels[0]
    visit.changes(WHY, lambda: visit.choose("#classes", last))
    assert visit.target() == 0
    assert visit.page.locator("#why-heat canvas").get_attribute("aria-label").startswith(f"grad-cam for {last}")


@pytest.mark.parametrize(
    ("pressed", "meanwhile"), [("#bars button >> nth=2", 3), ("#why-methods [data-key=layer-cam]", 5)]
)
def test_a_click_outlives_what_is_drawn_anew_before_it_is_through(visit, pressed, meanwhile):
    button = visit.page.locator(pressed)
    button.hover()
    visit.page.mouse.down()
    visit.changes(WHY, lambda: visit.chosen("desk", target=meanwhile))
    assert button.get_attribute("aria-pressed") == "false"
    visit.changes(WHY, visit.page.mouse.up)
    assert button.get_attribute("aria-pressed") == "true"


def test_a_click_on_a_method_and_a_turned_knob_change_the_map(visit):
    visit.changes(WHY, lambda: visit.page.locator("#why-methods [data-key=saliency]").click())
    visit.changes(WHY, lambda: visit.page.locator("#why-knobs select").first.select_option(label="norm"))
    visit.changes(WHY, lambda: visit.page.locator("#why-methods [data-key=guided-backprop]").click())


def test_the_opacity_and_the_value_under_the_mouse_ask_nothing_of_the_server(visit):
    asked = len(visit.requests)
    visit.changes(WHY, lambda: visit.page.locator(f"{WHY} input[type=range]").first.fill("20"))
    visit.page.locator(f"{WHY} canvas").hover()
    assert visit.page.locator(f"{WHY} output").inner_text().startswith("here ")
    assert len(visit.requests) == asked


def test_a_channel_and_a_layer_change_what_inside_shows(visit):
    visit.tab("Inside")
    visit.changes(CHANNEL, lambda: visit.page.locator("#inside-channels button").nth(4).click())
    for part in ("layer2", "layer2.0", "layer2.0.conv1"):
        visit.changes(CHANNEL, lambda part=part: visit.page.locator(f"#inside-tree [data-layer='{part}']").click())
    assert "layer2.0.conv1" in visit.page.locator("#inside-words").inner_text()


def test_a_convolutional_network_says_why_it_has_no_attention(visit):
    visit.tab("Attention")
    assert "built of convolutions" in visit.page.locator("#attention-words").inner_text()
    assert not visit.page.locator(GRID + " canvas").first.is_visible()


def test_another_model_changes_every_picture(visit):
    kernels = visit.page.locator("#inside-kernels button").count()
    visit.changes(CHANNEL, lambda: visit.changes(WHY, lambda: visit.choose("#model", VIT)))
    visit.page.locator(GRID + " canvas").first.wait_for()
    visit.page.locator("#inside-places canvas").first.wait_for(state="attached")
    assert (kernels, visit.page.locator("#inside-kernels button").count()) == (64, 192)


def test_a_click_on_a_patch_shows_its_attention_without_asking_the_server(visit, photo):
    asked = len(visit.requests)
    canvas = visit.page.locator(GRID + " canvas").first
    model, image = vizlib.load(VIT), vizlib.open_image(photo)
    geometry = model.preprocessing.geometry(image)
    top, left, bottom, right = geometry.cell_box(3, 6, model.tokens.grid)
    shown = canvas.bounding_box()
    share = shown["width"] / image.width
    visit.changes(
        GRID, lambda: canvas.click(position={"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share})
    )
    heat = vizlib.explain(model, image, method="raw-attention", query=(3, 6)).heat
    others = heat.flatten().clone()
    columns = model.tokens.grid[1]
    others[3 * columns + 6] = -1  # the sentence names the other patch it looks at most
    row, column = divmod(int(others.argmax()), columns)
    said = visit.page.locator(GRID + " .viz-says").inner_text()
    assert said.startswith("The patch in row 4, column 7 looks most at ")
    assert f"row {row + 1}, column {column + 1} (" in said
    assert float(said.split("(")[1].split(")")[0]) == pytest.approx(others.max().item(), rel=0.02)
    assert len(visit.requests) == asked


def test_the_keyboard_moves_the_patch_and_the_layer(visit):
    stage = visit.page.locator(GRID + " .viz-grid")
    stage.press("Escape")
    visit.changes(GRID, lambda: stage.press("ArrowRight"))
    assert "row 4, column 8" in visit.page.locator(GRID + " .viz-says").inner_text()
    visit.changes(GRID, lambda: stage.press("["))
    assert "layer 11" in visit.page.locator(GRID + " .viz-says").inner_text()
    visit.changes(GRID, lambda: visit.page.locator(GRID + " .viz-many").last.locator("button").nth(2).click())
    assert "head 2" in visit.page.locator(GRID + " .viz-says").inner_text()


def test_the_model_page_says_how_good_the_model_is_and_draws_how_it_learned(visit):
    visit.tab("Model")
    entry = next(entry for entry in vizlib.list_models() if entry.name == VIT)
    assert visit.page.locator("#model-card .viz-figures strong").first.inner_text() == f"{entry.accuracy:.1f}\u00a0%"
    assert visit.page.locator("#model-history path.viz-curve").count() == 2
    chart = visit.page.locator("#model-history svg")
    history = vizlib.training_history(VIT)
    assert f"validation from {history['val_top1'][0]:.1f}" in chart.get_attribute("aria-label")
    chart.press("ArrowLeft")  # reads the last epoch
    said = visit.page.locator("#model-history output").inner_text()
    assert said.startswith(f"epoch {history['epoch'][-1]:.0f}: validation {history['val_top1'][-1]:.1f}")


def test_a_file_that_is_no_photo_is_refused_in_one_sentence(visit, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    visit.tab("Why")
    visit.page.locator("#photo button[aria-label='Remove Image']").click()
    visit.settle()
    visit.upload(path)
    sentence = "The picture is text, not an image, expected a photo as JPEG, PNG, WebP, GIF, BMP or TIFF."
    visit.page.get_by_text(sentence, exact=True).first.wait_for()
    visit.settle()
    visit.changes(WHY, lambda: visit.page.locator("#examples button").nth(2).click())


def test_no_request_left_the_machine_and_nothing_complained(visit):
    hosts = {urlsplit(request).hostname for request in visit.requests if urlsplit(request).scheme.startswith("http")}
    assert hosts == {"127.0.0.1"}
    assert visit.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(visiting, theme):
    visit = visiting(f"?__theme={theme}", width=390, height=844)
    for tab in ("Why", "Attention", "Inside", "Compare", "Model", "Use in code"):
        visit.tab(tab)
        assert visit.page.evaluate(BEYOND, 390) == []
    visit.page.close()
