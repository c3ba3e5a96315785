"""The Inside tab and the receptive fields on a real photo show the library's numbers."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from cell_boxes import compute_cell_box

import vizlib
from vizlib.analysis.effective_receptive_field import effective_receptive_field

pytestmark = pytest.mark.slow

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
TREE, SHEET, HEAT = "#inside-tree", "#inside-channels", "#inside-heatmap"
SWITCH, FIELDS = "#inside-ablation", "#receptive-fields"


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session("?__theme=light")
    yield session
    session.page.close()


@pytest.fixture(scope="module")
def image(photo):
    return vizlib.open_image(photo)


def parse_numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+(?:\.\d+)?", text.replace("\u2212", "-"))]


def read_notes(session) -> dict[int, str]:
    buttons = session.page.locator(f"{SHEET} button[data-key]").all()
    return {int(button.get_attribute("data-key") or -1): button.locator(".viz-note").inner_text() for button in buttons}


def read_rows(session, side: int) -> list[tuple[str, str]]:
    rows = session.page.locator(f"{SWITCH} section").nth(side).locator("li").all()
    return [(row.locator(".viz-name").inner_text(), row.locator(".viz-share").inner_text()) for row in rows]


# The tests below share one session and run in this order.


def test_channels_are_sorted_by_contribution(session, photo, image):
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(photo)
    session.page.wait_for_function("() => document.querySelectorAll('#bars button').length === 5")
    session.settle()
    session.open_tab("Inside")
    contributions = vizlib.contributions(vizlib.load(RESNET), image)
    values = contributions.channels["layer4"]
    notes = read_notes(session)
    assert next(iter(notes)) == int(values.argmax())
    assert list(notes)[-1] == int(values.argmin())
    for channel, text in notes.items():
        assert float(text.replace("\u2212", "-")) == pytest.approx(values[channel].item(), abs=0.006)
    assert contributions.label in session.page.locator(f"{SHEET} h2").inner_text()


def test_another_target_changes_the_channel_order(session, image):
    model = vizlib.load(RESNET)
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars button").nth(1).click())
    contributions = vizlib.contributions(model, image, model.predict(image)[1].index)
    assert next(iter(read_notes(session))) == int(contributions.channels["layer4"].argmax())
    assert contributions.label in session.page.locator(f"{SHEET} h2").inner_text()
    session.page.locator("#bars button").nth(0).click()
    session.settle()


def test_ablated_channel_changes_the_predictions_and_is_restored(session, image):
    model = vizlib.load(RESNET)
    first, second = vizlib.contributions(model, image).channels["layer4"].argsort(descending=True)[:2].tolist()
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.page.wait_for_selector(f"{SWITCH} section")
    session.page.locator(f"{SHEET} [data-key='{second}']").click()
    session.settle()
    assert f"Channel {second} of layer4" in session.page.locator("#inside-caption h2").inner_text()
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.settle()
    assert read_notes(session)[first] == read_notes(session)[second] == "off"
    old, new = model.predict(image), vizlib.ablate(model, image, channels={"layer4": [first, second]})
    for side, expected in ((0, old), (1, new)):
        rows = read_rows(session, side)
        assert [name for name, _ in rows][:5] == [row.label for row in expected[:5]]
        for (_, text), prediction in zip(rows, expected, strict=False):
            assert parse_numbers(text)[0] == pytest.approx(100 * (prediction.probability or 0), abs=0.51)
    text = session.page.locator(f"{SWITCH} .viz-effect").inner_text()
    logit = next(row.logit for row in new if row.index == old[0].index)
    assert parse_numbers(text.split("its score changes by ")[1])[0] == pytest.approx(logit - old[0].logit, abs=0.006)
    session.page.locator(f"{SWITCH} .viz-chip", has_text=f"channel {first}").click()
    session.settle()
    assert read_notes(session)[first] != "off"
    assert read_notes(session)[second] == "off"
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.settle()
    assert session.page.locator(f"{SWITCH} section").count() == 0


def test_tree_opens_by_keyboard_and_selects_a_layer(session):
    row = session.page.locator(f"{TREE} summary[data-layer='layer2']")
    row.focus()
    session.page.keyboard.press("Enter")
    session.settle()
    assert row.get_attribute("aria-current") == "true"
    assert session.page.locator(f"{TREE} [data-layer='layer2.0']").is_visible()
    layer = next(layer for layer in vizlib.load(RESNET).layers if layer.name == "layer2")
    assert " × ".join(map(str, layer.shape)) in row.inner_text()
    assert "526 k" in row.inner_text()  # its 525,568 parameters
    assert "layer2" in session.page.locator(f"{SHEET} h2").inner_text()
    assert session.page.evaluate("() => document.activeElement.dataset.layer") == "layer2"


def test_click_on_the_tree_takes_effect_although_it_is_redrawn_before_it_ends(session):
    session.page.locator(f"{TREE} [data-layer='layer2.0']").hover()
    session.page.mouse.down()
    session.emit_choice("inside-event-queue", layer="conv1")
    session.page.wait_for_selector(f"{TREE} [data-layer='conv1'][aria-current]")
    session.settle()
    session.page.mouse.up()
    session.page.wait_for_selector(f"{TREE} [data-layer='layer2.0'][aria-current]")
    session.settle()


def test_kernel_shows_its_output(session, image):
    session.wait_for_change("#inside-kernel", lambda: session.page.locator("#inside-kernels button").nth(3).click())
    output = vizlib.load(RESNET).run(image, layers=["conv1"]).activations["conv1"][0, 3]
    text = session.page.locator("#inside-kernels .viz-caveat").inner_text()
    assert parse_numbers(text) == pytest.approx([3, output.min().item(), output.max().item()], rel=0.01)


def test_hovering_a_cell_sends_no_request_and_a_click_computes_the_effective_field(session, image):
    session.open_tab("Attention")
    model = vizlib.load(RESNET)
    canvas = session.page.locator(f"{FIELDS} canvas")
    canvas.scroll_into_view_if_needed()
    rows = model.run(image, layers=["layer2"]).activations["layer2"].shape[-1]
    box = compute_cell_box(model.preprocessing.geometry(image), 5, 9, (rows, rows))
    canvas_box = canvas.bounding_box()
    share = canvas_box["width"] / image.width
    place = {"x": (box[1] + box[3]) / 2 * share, "y": (box[0] + box[2]) / 2 * share}
    num_requests = len(session.requests)
    session.wait_for_change(FIELDS, lambda: canvas.hover(position=place))
    assert len(session.requests) == num_requests
    field = vizlib.receptive_field(model, "layer2")
    description = session.page.locator(f"{FIELDS} .viz-description")
    assert description.inner_text().startswith(
        f"Row 6, column 10 of layer2 has a receptive field of {field.size[0]:.0f} × {field.size[1]:.0f}"
    )
    maps = model.run(image, layers=["layer2"]).activations["layer2"][0, :, 5, 9].detach()
    strongest = session.page.locator(f"{FIELDS} .viz-strongest-channels li").all()
    assert [parse_numbers(item.inner_text())[0] for item in strongest] == maps.topk(5).indices.tolist()
    assert [parse_numbers(item.inner_text())[1] for item in strongest] == pytest.approx(
        maps.topk(5).values.tolist(), rel=0.01
    )
    session.wait_for_change(FIELDS, lambda: canvas.click(position=place))
    used = effective_receptive_field(model, image, "layer2", (5, 9))
    assert (
        f"effective receptive field on this photo is about {used.size:.0f} × {used.size:.0f}"
        in description.inner_text()
    )
    left = session.page.evaluate(
        f"() => document.querySelector('{FIELDS} .viz-theoretical-field').getBoundingClientRect().width"
    )
    field_box = field.box(5, 9)
    pixels = min(field_box[3], model.preprocessing.input_size[1]) - max(field_box[1], 0)
    wide = model.preprocessing.geometry(image)
    assert left == pytest.approx(pixels / wide.scale[1] * share, abs=2)
    canvas_box, frame = canvas.bounding_box(), session.page.locator(f"{FIELDS} .viz-cursor").bounding_box()
    assert frame["x"] + frame["width"] / 2 - canvas_box["x"] == pytest.approx(place["x"], abs=2)
    assert frame["y"] + frame["height"] / 2 - canvas_box["y"] == pytest.approx(place["y"], abs=2)


def test_keyboard_moves_the_cell_and_the_layer(session):
    stage = session.page.locator(f"{FIELDS} .viz-grid")
    description = session.page.locator(f"{FIELDS} .viz-description")
    stage.press("ArrowRight")
    session.wait_for_text(f"{FIELDS} .viz-description", "Row 6, column 11 of layer2")
    num_requests = len(session.requests)
    stage.press("[")
    session.wait_for_text(f"{FIELDS} .viz-description", "of layer1 has a receptive field of 43 × 43")
    assert "Click to compute its effective receptive field" in description.inner_text()
    assert len(session.requests) == num_requests
    session.wait_for_change(FIELDS, lambda: stage.press("Enter"))
    assert "Its effective receptive field on this photo is about" in description.inner_text()


def test_heads_are_sorted_by_contribution_and_ablated(session, image):
    session.open_tab("Inside")
    session.wait_for_change(HEAT, lambda: session.choose_option("#model", VIT))
    assert not session.page.locator(FIELDS + " canvas").is_visible()
    for layer in ("blocks.11", "blocks.11.attn"):
        session.page.locator(f"{TREE} [data-layer='{layer}']").click()
        session.settle()
    model = vizlib.load(VIT)
    heads = vizlib.contributions(model, image).heads["blocks.11.attn"]
    notes = read_notes(session)
    assert list(notes) == heads.argsort(descending=True).tolist()
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.page.wait_for_selector(f"{SWITCH} section")
    new = vizlib.ablate(model, image, heads={"blocks.11.attn": [int(heads.argmax())]})
    rows = read_rows(session, 1)
    assert rows[0][0] == new[0].label
    assert parse_numbers(rows[0][1])[0] == pytest.approx(100 * (new[0].probability or 0), abs=0.51)


def test_inside_session_had_no_errors(session):
    assert session.errors == []


def test_gradient_of_a_channel_and_of_a_clicked_position(open_checked_session, tower):
    session = open_checked_session(f"?m={RESNET}&img=ex:tower&v=inside")
    model = vizlib.load(RESNET)
    channel = int(session.page.locator(f"{SHEET} [aria-pressed=true]").get_attribute("data-key") or -1)
    button, caption = session.page.locator("#inside-raise button"), session.page.locator("#inside-gradient-caption")
    button.click()
    session.page.wait_for_selector("#inside-gradient canvas[data-drawn]")
    assert f"What would raise layer4 · channel {channel}?" in caption.inner_text()
    high = float(np.percentile(vizlib.gradient(model, tower, "layer4", unit=channel).heat(reduction="sum").abs(), 99.5))
    ends = parse_numbers(session.page.locator("#inside-gradient .viz-numbers").inner_text())
    assert max(ends) == pytest.approx(high, rel=0.2)  # interpolated between pixels
    canvas = session.page.locator(f"{HEAT} canvas")
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": 0.53 * box["width"], "y": 0.53 * box["height"]})  # just beyond the middle
    session.wait_until("() => /row 3, column 3/.test(document.querySelector('#inside-gradient-caption').textContent)")
    session.settle()
    query = urlsplit(session.page.url).query
    assert parse_qs(query)["u"] == ["layer4@3,3"]
    again = open_checked_session(f"?{query}")
    again.wait_until("() => /row 3, column 3/.test(document.querySelector('#inside-gradient-caption').textContent)")
    session.page.bring_to_front()
    button.click()
    session.wait_until("() => document.querySelector('#inside-raise button').ariaPressed === 'false'")
    assert caption.inner_text().strip() == ""
    assert not session.page.locator("#inside-gradient canvas").is_visible()
