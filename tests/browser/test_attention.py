"""A person points at patches and tokens, pins them, turns layers: all in the browser, with the library's numbers."""

from __future__ import annotations

import gradio.media
import pytest
import torch
from cell_boxes import compute_cell_box

import dashboard.components.patches
import vizlib
from vizlib.render.color_scale import compute_limits

pytestmark = pytest.mark.slow

VIT, GRID, FLOW = "vit_tiny-imagenette", "#attention-patches", "#attention-flow"
OPENED = f"?m={VIT}&img=ex:tower&v=attention"


def state(session, wanted: str) -> None:
    """Wait until the grid shows a layer, a head, a token under the mouse and pins."""
    session.wait_until(f"document.querySelector('{GRID} .viz-grid').dataset.state === '{wanted}'")


def told(session) -> list[str]:
    return session.page.locator(GRID + " .viz-description span").all_inner_texts()


def first(session):
    return session.page.locator(GRID + " canvas").first


def at(session, row: int, column: int) -> dict[str, float]:
    """Where a patch's middle lies on the first picture as the page shows it."""
    top, left, bottom, right = compute_cell_box(geometry(), row, column, (14, 14))
    share = first(session).bounding_box()["width"] / tower().width
    return {"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share}


def hover(session, row: int, column: int) -> None:
    first(session).hover(position=at(session, row, column))


def click(session, row: int, column: int) -> None:
    first(session).click(position=at(session, row, column))


def press(session, *keys: str) -> None:
    for key in keys:
        session.page.locator(GRID + " .viz-grid").press(key)


def tower():
    return vizlib.open_image(gradio.media.get_image("tower.jpg"))


def geometry():
    return vizlib.load(VIT).preprocessing.geometry(tower())


def heat(query, layer: int = 11, head="mean"):
    model = vizlib.load(VIT)
    name = model.attention_layers[layer]
    return vizlib.explain(model, tower(), "raw-attention", layer=name, head=head, query=query).heat


def strongest(map_, own: tuple[int, int] | None) -> str:
    """What the sentence names: the other patch it looks at most."""
    others = map_.clone()
    if own is not None:
        others[own] = -1
    row, column = divmod(int(others.argmax()), others.shape[1])
    return f"row {row + 1}, column {column + 1} ("


def value_in(text: str, after: str) -> float:
    return float(text.split(after)[1].split(")")[0].rstrip(".").replace("−", "-"))


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session(OPENED + "&__theme=light")
    first(session).wait_for()
    session.settle()
    yield session
    session.page.close()


@pytest.fixture
def quiet_session(session):
    """The visit, which must ask nothing of the server while a test runs."""
    asked = len(session.requests)
    yield session
    session.page.wait_for_timeout(300)
    assert session.requests[asked:] == []


# The tests below are one visit, in this order; each leaves the page in a state the next may start from.


def test_the_class_token_comes_first(quiet_session):
    (said,) = told(quiet_session)
    assert said.startswith("The class token attends most to " + strongest(heat("class"), None))
    assert said.endswith("in layer 12, mean of all heads.")


def test_pointing_at_a_patch_shows_its_attention_at_once(quiet_session):
    for row, column in ((3, 6), (9, 2), (13, 13)):
        hover(quiet_session, row, column)
        state(quiet_session, f"11,-1,{1 + 14 * row + column}")
        (said,) = told(quiet_session)
        map_ = heat((row, column))
        name = strongest(map_, (row, column))
        assert said.startswith(f"The patch in row {row + 1}, column {column + 1} attends most to {name}")
        map_[row, column] = -1
        assert value_in(said, name) == pytest.approx(map_.max().item(), rel=0.02)
        assert quiet_session.page.locator(GRID + " canvas").first.get_attribute("aria-label") == said


def test_a_token_without_a_place_is_a_chip_to_point_at(quiet_session):
    quiet_session.page.locator(GRID + " .viz-chip").first.hover()
    state(quiet_session, "11,-1,0")
    assert told(quiet_session)[0].startswith("The class token attends most to " + strongest(heat("class"), None))
    assert (
        quiet_session.page.locator(GRID + " .viz-similar-positions")
        .inner_text()
        .endswith("The class token has no position on the photo.")
    )


def test_a_pinned_patch_stays_and_tells_what_it_takes_from_the_patch_under_the_mouse(quiet_session):
    click(quiet_session, 6, 8)
    state(quiet_session, "11,-1,93,93")
    before = quiet_session.read_canvas(GRID).tobytes()
    hover(quiet_session, 9, 7)
    state(quiet_session, "11,-1,134,93")
    (said,) = told(quiet_session)
    assert said.startswith("The patch in row 7, column 9 ")
    assert value_in(said, "Here, in row 10, column 8: ") == pytest.approx(heat((6, 8))[9, 7].item(), rel=0.02)
    assert quiet_session.read_canvas(GRID).tobytes() == before


def test_a_second_pin_is_shown_beside_the_first_on_one_scale(quiet_session):
    click(quiet_session, 2, 2)
    state(quiet_session, "11,-1,31,93,31")
    assert [canvas.is_visible() for canvas in quiet_session.page.locator(GRID + " .viz-panel canvas").all()] == [
        True,
        True,
    ]
    assert quiet_session.page.locator(GRID + " .viz-token-name").all_inner_texts() == [
        "row 7, column 9",
        "row 3, column 3",
    ]
    assert [said[:27] for said in told(quiet_session)] == ["The patch in row 7, column ", "The patch in row 3, column "]
    joined = torch.stack([heat((6, 8)), heat((2, 2))]).numpy()
    top = quiet_session.page.locator(GRID + " .viz-numbers span").last.inner_text()
    assert float(top) == pytest.approx(compute_limits(joined, signed=False)[1], rel=0.02)


def test_escape_a_second_click_and_its_chip_each_let_go_of_a_pin(quiet_session):
    press(quiet_session, "Escape")
    state(quiet_session, "11,-1,31,93")
    quiet_session.page.locator(GRID + " .viz-chip[data-token='93']").click()
    state(quiet_session, "11,-1,93")
    click(quiet_session, 5, 5)
    state(quiet_session, "11,-1,76,76")
    click(quiet_session, 5, 5)
    state(quiet_session, "11,-1,76")


def test_the_keyboard_moves_pins_and_turns_layers(quiet_session):
    press(quiet_session, "ArrowRight")
    press(quiet_session, "ArrowDown")
    state(quiet_session, "11,-1,91")
    press(quiet_session, "Enter")
    press(quiet_session, "ArrowLeft")
    press(quiet_session, "Enter")
    state(quiet_session, "11,-1,90,91,90")
    press(quiet_session, "[")
    state(quiet_session, "10,-1,90,91,90")
    press(quiet_session, "]")
    press(quiet_session, "]")
    state(quiet_session, "11,-1,90,91,90")
    press(quiet_session, "Escape")
    press(quiet_session, "Escape")
    state(quiet_session, "11,-1,91")


def test_layers_and_heads_are_small_multiples_to_choose_from_and_raw_attention_follows(quiet_session):
    layers, heads = quiet_session.page.locator(GRID + " .viz-multiples").all()
    assert (layers.locator("button").count(), heads.locator("button").count()) == (12, 4)
    layers.locator("button").nth(4).click()
    heads.locator("button").nth(2).click()
    state(quiet_session, "4,1,91")
    map_ = heat((6, 6), layer=4, head=1)
    assert f"attends most to {strongest(map_, (6, 6))}" in told(quiet_session)[0]
    assert told(quiet_session)[0].endswith("in layer 5, head 2.")
    assert layers.locator("[aria-pressed=true]").inner_text() == "5"
    figure = quiet_session.page.locator(FLOW + " figure").first
    top = compute_limits(heat("class", layer=4).numpy(), signed=False)[1]
    assert float(figure.locator(".viz-numbers span").last.inner_text()) == pytest.approx(top, rel=0.01)


def test_the_three_readings_tell_their_values_at_one_place(quiet_session):
    canvas = quiet_session.page.locator(FLOW + " canvas").first
    shown = canvas.bounding_box()
    share = shown["width"] / tower().width
    y, x = tower().height // 2, tower().width // 2
    canvas.hover(position={"x": (x + 0.5) * share, "y": (y + 0.5) * share})
    said = quiet_session.page.locator(FLOW + " .viz-linked-value").all_inner_texts()
    model = vizlib.load(VIT)
    best = model.predict(tower())[0].index
    for text, method in zip(said[1:], ("attention-rollout", "attention-relevance"), strict=True):
        expected = vizlib.explain(model, tower(), method, target=best).project_to_photo()[y, x]
        assert float(text) == pytest.approx(expected, rel=0.01)


def test_another_class_changes_relevance_alone_and_leaves_the_pin(session):
    click(session, 6, 8)
    before = session.page.locator(FLOW + " canvas").evaluate_all("all => all.map((one) => one.toDataURL())")
    session.page.locator("#bars button").nth(1).click()
    third = f"document.querySelectorAll('{FLOW} canvas')[2].toDataURL()"
    session.page.wait_for_function(f"old => {third} !== old", arg=before[2])
    session.settle()
    after = session.page.locator(FLOW + " canvas").evaluate_all("all => all.map((one) => one.toDataURL())")
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]
    session.page.mouse.move(0, 0)
    assert session.page.locator(GRID + " .viz-grid").get_attribute("data-state").endswith(",93")


def test_nothing_complained(session):
    assert session.errors == []


def test_layer_head_and_pins_stand_in_the_address_and_come_back_from_it(session, open_checked_session):
    press(session, "Escape")
    state(session, "4,1,93")
    assert "&l=5" in session.page.url
    assert "&h=2" in session.page.url
    assert "p=" not in session.page.url
    click(session, 6, 8)
    click(session, 2, 2)
    state(session, "4,1,31,93,31")
    assert "&p=7,9;3,3" in session.page.url
    again = open_checked_session("?" + session.page.url.partition("?")[2])
    state(again, "4,1,,93,31")
    assert again.page.locator(GRID + " .viz-token-name").all_inner_texts() == ["row 7, column 9", "row 3, column 3"]
    figure = again.page.locator(FLOW + " figure").first
    top = compute_limits(heat("class", layer=4).numpy(), signed=False)[1]
    assert float(figure.locator(".viz-numbers span").last.inner_text()) == pytest.approx(top, rel=0.01)


def test_an_address_of_a_head_and_a_patch_that_are_not_there_shows_what_is_there(open_checked_session):
    session = open_checked_session(OPENED + "&l=12&h=7&p=99,1;3,3")
    state(session, "11,-1,,31")


def test_a_tap_pins(session, chromium, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    session = type(session)(context.new_page(), address + OPENED)
    canvas = first(session)
    canvas.scroll_into_view_if_needed()
    canvas.tap(position=at(session, 6, 8))
    state(session, "11,-1,93,93")
    canvas.tap(position=at(session, 2, 2))
    state(session, "11,-1,31,93,31")
    session.page.locator(GRID + " .viz-chip[data-token='31']").tap()
    state(session, "11,-1,31,93")
    context.close()


def test_where_all_heads_are_too_many_bytes_those_of_a_layer_come_when_it_is_looked_at(
    open_checked_session, monkeypatch
):
    monkeypatch.setattr(dashboard.components.patches, "BUDGET", 10**6)
    session = open_checked_session(OPENED)
    first(session).wait_for()
    click(session, 6, 8)
    heads = session.page.locator(GRID + " .viz-multiples").nth(1)
    heads.locator("button").nth(1).click()
    state(session, "11,0,,93")
    asked = len(session.requests)
    press(session, "[", "[")
    session.settle()
    assert 0 < len(session.requests) - asked < 6  # one question for the layer that stayed, and its answer
    state(session, "9,0,,93")
    map_ = heat((6, 8), layer=9, head=0)
    assert strongest(map_, (6, 8)) in told(session)[0]
    asked = len(session.requests)
    press(session, "]", "]")
    session.settle()
    assert len(session.requests) == asked  # the last layer's heads are here already
