"""Inside and the receptive fields, clicked through on a real photo; the numbers on screen are the library's."""

from __future__ import annotations

import re

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


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"[+-]?\d+(?:\.\d+)?", text.replace("\u2212", "-"))]


def notes(session) -> dict[int, str]:
    buttons = session.page.locator(f"{SHEET} button").all()
    return {int(one.get_attribute("data-key") or -1): one.locator(".viz-note").inner_text() for one in buttons}


def shares(session, side: int) -> list[tuple[str, str]]:
    rows = session.page.locator(f"{SWITCH} section").nth(side).locator("li").all()
    return [(one.locator(".viz-name").inner_text(), one.locator(".viz-share").inner_text()) for one in rows]


# The tests below are one visit, in this order.


def test_the_sheet_is_sorted_by_what_each_channel_adds_to_the_class(session, photo, image):
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(photo)
    session.page.wait_for_function("() => document.querySelectorAll('#bars button').length === 5")
    session.settle()
    session.open_tab("Inside")
    found = vizlib.contributions(vizlib.load(RESNET), image)
    added = found.channels["layer4"]
    told = notes(session)
    assert next(iter(told)) == int(added.argmax())
    assert list(told)[-1] == int(added.argmin())
    for channel, text in told.items():
        assert float(text.replace("\u2212", "-")) == pytest.approx(added[channel].item(), abs=0.006)
    assert found.label in session.page.locator(f"{SHEET} h2").inner_text()


def test_another_target_changes_the_channel_order(session, image):
    model = vizlib.load(RESNET)
    session.wait_for_change(HEAT, lambda: session.page.locator("#bars button").nth(1).click())
    found = vizlib.contributions(model, image, model.predict(image)[1].index)
    assert next(iter(notes(session))) == int(found.channels["layer4"].argmax())
    assert found.label in session.page.locator(f"{SHEET} h2").inner_text()
    session.page.locator("#bars button").nth(0).click()
    session.settle()


def test_a_switched_off_channel_changes_the_answer_and_comes_back(session, image):
    model = vizlib.load(RESNET)
    first, second = vizlib.contributions(model, image).channels["layer4"].argsort(descending=True)[:2].tolist()
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.page.wait_for_selector(f"{SWITCH} section")
    session.page.locator(f"{SHEET} [data-key='{second}']").click()
    session.settle()
    assert f"Channel {second} of layer4" in session.page.locator("#inside-caption h2").inner_text()
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.settle()
    assert notes(session)[first] == notes(session)[second] == "off"
    old, new = model.predict(image), vizlib.ablate(model, image, channels={"layer4": [first, second]})
    for side, theirs in ((0, old), (1, new)):
        shown = shares(session, side)
        assert [name for name, _ in shown][:5] == [one.label for one in theirs[:5]]
        for (_, text), one in zip(shown, theirs, strict=False):
            assert numbers(text)[0] == pytest.approx(100 * one.probability, abs=0.51)
    said = session.page.locator(f"{SWITCH} .viz-effect").inner_text()
    logit = next(one.logit for one in new if one.index == old[0].index)
    assert numbers(said.split("its score by ")[1])[0] == pytest.approx(logit - old[0].logit, abs=0.006)
    session.page.locator(f"{SWITCH} .viz-chip", has_text=f"channel {first}").click()
    session.settle()
    assert notes(session)[first] != "off"
    assert notes(session)[second] == "off"
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.settle()
    assert session.page.locator(f"{SWITCH} section").count() == 0


def test_the_tree_opens_by_keyboard_and_a_layer_is_chosen_with_its_numbers(session):
    part = session.page.locator(f"{TREE} summary[data-layer='layer2']")
    part.focus()
    session.page.keyboard.press("Enter")
    session.settle()
    assert part.get_attribute("aria-current") == "true"
    assert session.page.locator(f"{TREE} [data-layer='layer2.0']").is_visible()
    layer = next(one for one in vizlib.load(RESNET).layers if one.name == "layer2")
    assert " × ".join(map(str, layer.shape)) in part.inner_text()
    assert "526 k" in part.inner_text()  # its 525,568 parameters
    assert "layer2" in session.page.locator(f"{SHEET} h2").inner_text()
    assert session.page.evaluate("() => document.activeElement.dataset.layer") == "layer2"


def test_a_click_on_the_tree_outlives_what_is_drawn_anew_before_it_is_through(session):
    session.page.locator(f"{TREE} [data-layer='layer2.0']").hover()
    session.page.mouse.down()
    session.emit_choice("inside-event-queue", layer="conv1")
    session.page.wait_for_selector(f"{TREE} [data-layer='conv1'][aria-current]")
    session.settle()
    session.page.mouse.up()
    session.page.wait_for_selector(f"{TREE} [data-layer='layer2.0'][aria-current]")
    session.settle()


def test_a_kernel_shows_what_it_answers(session, image):
    session.wait_for_change("#inside-kernel", lambda: session.page.locator("#inside-kernels button").nth(3).click())
    answer = vizlib.load(RESNET).run(image, layers=["conv1"]).activations["conv1"][0, 3]
    said = session.page.locator("#inside-kernels .viz-caveat").inner_text()
    assert numbers(said) == pytest.approx([3, answer.min().item(), answer.max().item()], rel=0.01)


def test_pointing_at_a_cell_asks_nothing_and_a_click_shows_what_it_goes_by(session, image):
    session.open_tab("Attention")
    model = vizlib.load(RESNET)
    canvas = session.page.locator(f"{FIELDS} canvas")
    canvas.scroll_into_view_if_needed()
    rows = model.run(image, layers=["layer2"]).activations["layer2"].shape[-1]
    box = compute_cell_box(model.preprocessing.geometry(image), 5, 9, (rows, rows))
    shown = canvas.bounding_box()
    share = shown["width"] / image.width
    place = {"x": (box[1] + box[3]) / 2 * share, "y": (box[0] + box[2]) / 2 * share}
    asked = len(session.requests)
    session.wait_for_change(FIELDS, lambda: canvas.hover(position=place))
    assert len(session.requests) == asked
    field = vizlib.receptive_field(model, "layer2")
    says = session.page.locator(f"{FIELDS} .viz-description")
    assert says.inner_text().startswith(
        f"Row 6, column 10 of layer2 has a receptive field of {field.size[0]:.0f} × {field.size[1]:.0f}"
    )
    maps = model.run(image, layers=["layer2"]).activations["layer2"][0, :, 5, 9].detach()
    strongest = session.page.locator(f"{FIELDS} .viz-strongest-channels li").all()
    assert [numbers(one.inner_text())[0] for one in strongest] == maps.topk(5).indices.tolist()
    assert [numbers(one.inner_text())[1] for one in strongest] == pytest.approx(maps.topk(5).values.tolist(), rel=0.01)
    session.wait_for_change(FIELDS, lambda: canvas.click(position=place))
    used = effective_receptive_field(model, image, "layer2", (5, 9))
    assert f"effective receptive field on this photo is about {used.size:.0f} × {used.size:.0f}" in says.inner_text()
    left = session.page.evaluate(
        f"() => document.querySelector('{FIELDS} .viz-theoretical-field').getBoundingClientRect().width"
    )
    seen = field.box(5, 9)
    pixels = min(seen[3], model.preprocessing.input_size[1]) - max(seen[1], 0)
    wide = model.preprocessing.geometry(image)
    assert left == pytest.approx(pixels / wide.scale[1] * share, abs=2)
    shown, frame = canvas.bounding_box(), session.page.locator(f"{FIELDS} .viz-cursor").bounding_box()
    assert frame["x"] + frame["width"] / 2 - shown["x"] == pytest.approx(place["x"], abs=2)
    assert frame["y"] + frame["height"] / 2 - shown["y"] == pytest.approx(place["y"], abs=2)


def test_the_keyboard_moves_the_cell_and_the_layer(session):
    stage = session.page.locator(f"{FIELDS} .viz-grid")
    says = session.page.locator(f"{FIELDS} .viz-description")
    stage.press("ArrowRight")
    session.wait_for_text(f"{FIELDS} .viz-description", "Row 6, column 11 of layer2")
    asked = len(session.requests)
    stage.press("[")
    session.wait_for_text(f"{FIELDS} .viz-description", "of layer1 has a receptive field of 43 × 43")
    assert "Click to compute its effective receptive field" in says.inner_text()
    assert len(session.requests) == asked
    session.wait_for_change(FIELDS, lambda: stage.press("Enter"))
    assert "Its effective receptive field on this photo is about" in says.inner_text()


def test_a_transformers_heads_are_sorted_and_switched_off(session, image):
    session.open_tab("Inside")
    session.wait_for_change(HEAT, lambda: session.choose_option("#model", VIT))
    assert not session.page.locator(FIELDS + " canvas").is_visible()
    for part in ("blocks.11", "blocks.11.attn"):
        session.page.locator(f"{TREE} [data-layer='{part}']").click()
        session.settle()
    model = vizlib.load(VIT)
    heads = vizlib.contributions(model, image).heads["blocks.11.attn"]
    told = notes(session)
    assert list(told) == heads.argsort(descending=True).tolist()
    session.page.locator(f"{SWITCH} .viz-ablation-toggle").click()
    session.page.wait_for_selector(f"{SWITCH} section")
    new = vizlib.ablate(model, image, heads={"blocks.11.attn": [int(heads.argmax())]})
    shown = shares(session, 1)
    assert shown[0][0] == new[0].label
    assert numbers(shown[0][1])[0] == pytest.approx(100 * new[0].probability, abs=0.51)


def test_nobody_complained(session):
    assert session.errors == []
