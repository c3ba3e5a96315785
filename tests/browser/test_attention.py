"""The Attention tab: hovering and pinning patches, layers and heads, with the library's numbers."""

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
QUERY = f"?m={VIT}&img=ex:tower&v=attention"


def wait_for_state(session, state: str) -> None:
    """Wait until the grid shows "layer,head,token,pin,...", counted from 0; head -1 is the mean."""
    session.wait_until(f"document.querySelector('{GRID} .viz-grid').dataset.state === '{state}'")


def read_sentences(session) -> list[str]:
    return session.page.locator(GRID + " .viz-description span").all_inner_texts()


def first_canvas(session):
    return session.page.locator(GRID + " canvas").first


def position_of(session, row: int, column: int) -> dict[str, float]:
    """Return the centre of a patch in pixels of the first canvas."""
    top, left, bottom, right = compute_cell_box(geometry(), row, column, (14, 14))
    share = first_canvas(session).bounding_box()["width"] / tower().width
    return {"x": (left + right) / 2 * share, "y": (top + bottom) / 2 * share}


def hover(session, row: int, column: int) -> None:
    first_canvas(session).hover(position=position_of(session, row, column))


def click(session, row: int, column: int) -> None:
    first_canvas(session).click(position=position_of(session, row, column))


def press(session, *keys: str) -> None:
    for key in keys:
        session.page.locator(GRID + " .viz-grid").press(key)


def press_at_once(session, *keys: str) -> None:
    """Press keys with no time between them, as a page that runs slowly would request what the first one shows."""
    session.page.locator(GRID + " .viz-grid").evaluate(
        "(node, keys) => keys.forEach((key) => node.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: "
        "true })))",
        list(keys),
    )


def tower():
    return vizlib.open_image(gradio.media.get_image("tower.jpg"))


def geometry():
    return vizlib.load(VIT).preprocessing.geometry(tower())


def heat(query, layer: int = 11, head: int | str = "mean"):
    model = vizlib.load(VIT)
    name = model.attention_layers[layer]
    return vizlib.explain(model, tower(), "raw-attention", layer=name, head=head, query=query).heat


def name_strongest_patch(map_, own: tuple[int, int] | None) -> str:
    """Return the name of the patch with the largest value, other than the token's own."""
    others = map_.clone()
    if own is not None:
        others[own] = -1
    row, column = divmod(int(others.argmax()), others.shape[1])
    return f"row {row + 1}, column {column + 1} ("


def value_in(text: str, after: str) -> float:
    return float(text.split(after)[1].split(")")[0].rstrip(".").replace("−", "-"))


@pytest.fixture(scope="module")
def session(open_session):
    session = open_session(QUERY + "&__theme=light")
    first_canvas(session).wait_for()
    session.settle()
    yield session
    session.page.close()


@pytest.fixture
def quiet_session(session):
    """Return the session, which must send no request during the test."""
    num_requests = len(session.requests)
    yield session
    session.settle()
    assert session.requests[num_requests:] == []


# The tests below share one session and run in this order.


def test_attention_shows_the_class_token_first(quiet_session):
    (sentence,) = read_sentences(quiet_session)
    assert sentence.startswith("The class token attends most to " + name_strongest_patch(heat("class"), None))
    assert sentence.endswith("in layer 12, mean of all heads.")


def test_hovering_a_patch_shows_its_attention(quiet_session):
    for row, column in ((3, 6), (9, 2), (13, 13)):
        hover(quiet_session, row, column)
        wait_for_state(quiet_session, f"11,-1,{1 + 14 * row + column}")
        (sentence,) = read_sentences(quiet_session)
        map_ = heat((row, column))
        name = name_strongest_patch(map_, (row, column))
        assert sentence.startswith(f"The patch in row {row + 1}, column {column + 1} attends most to {name}")
        map_[row, column] = -1
        assert value_in(sentence, name) == pytest.approx(map_.max().item(), rel=0.02)
        assert quiet_session.page.locator(GRID + " canvas").first.get_attribute("aria-label") == sentence


def test_class_token_has_a_chip(quiet_session):
    quiet_session.page.locator(GRID + " .viz-chip").first.hover()
    wait_for_state(quiet_session, "11,-1,0")
    assert read_sentences(quiet_session)[0].startswith(
        "The class token attends most to " + name_strongest_patch(heat("class"), None)
    )
    assert (
        quiet_session.page.locator(GRID + " .viz-similar-positions")
        .inner_text()
        .endswith("The class token has no position on the photo.")
    )


def test_pinned_patch_stays_and_reports_its_value_at_the_hovered_patch(quiet_session):
    click(quiet_session, 6, 8)
    wait_for_state(quiet_session, "11,-1,93,93")
    before = quiet_session.read_canvas(GRID).tobytes()
    hover(quiet_session, 9, 7)
    wait_for_state(quiet_session, "11,-1,134,93")
    (sentence,) = read_sentences(quiet_session)
    assert sentence.startswith("The patch in row 7, column 9 ")
    assert value_in(sentence, "Here, in row 10, column 8: ") == pytest.approx(heat((6, 8))[9, 7].item(), rel=0.02)
    assert quiet_session.read_canvas(GRID).tobytes() == before


def test_second_pin_is_shown_beside_the_first_on_one_colour_scale(quiet_session):
    click(quiet_session, 2, 2)
    wait_for_state(quiet_session, "11,-1,31,93,31")
    assert [canvas.is_visible() for canvas in quiet_session.page.locator(GRID + " .viz-panel canvas").all()] == [
        True,
        True,
    ]
    assert quiet_session.page.locator(GRID + " .viz-token-name").all_inner_texts() == [
        "row 7, column 9",
        "row 3, column 3",
    ]
    assert [sentence[:27] for sentence in read_sentences(quiet_session)] == [
        "The patch in row 7, column ",
        "The patch in row 3, column ",
    ]
    joined = torch.stack([heat((6, 8)), heat((2, 2))]).numpy()
    top = quiet_session.page.locator(GRID + " .viz-numbers span").last.inner_text()
    assert float(top) == pytest.approx(compute_limits(joined, signed=False)[1], rel=0.02)


def test_escape_second_click_and_chip_unpin(quiet_session):
    press(quiet_session, "Escape")
    wait_for_state(quiet_session, "11,-1,31,93")
    quiet_session.page.locator(GRID + " .viz-chip[data-token='93']").click()
    wait_for_state(quiet_session, "11,-1,93")
    click(quiet_session, 5, 5)
    wait_for_state(quiet_session, "11,-1,76,76")
    click(quiet_session, 5, 5)
    wait_for_state(quiet_session, "11,-1,76")


def test_attention_keyboard_moves_pins_and_changes_layers(quiet_session):
    press(quiet_session, "ArrowRight")
    press(quiet_session, "ArrowDown")
    wait_for_state(quiet_session, "11,-1,91")
    press(quiet_session, "Enter")
    press(quiet_session, "ArrowLeft")
    press(quiet_session, "Enter")
    wait_for_state(quiet_session, "11,-1,90,91,90")
    press(quiet_session, "[")
    wait_for_state(quiet_session, "10,-1,90,91,90")
    press(quiet_session, "]")
    press(quiet_session, "]")
    wait_for_state(quiet_session, "11,-1,90,91,90")
    press(quiet_session, "Escape")
    press(quiet_session, "Escape")
    wait_for_state(quiet_session, "11,-1,91")


def test_small_multiples_select_layer_and_head_and_raw_attention_follows(quiet_session):
    layers, heads = quiet_session.page.locator(GRID + " .viz-multiples").all()
    assert (layers.locator("button").count(), heads.locator("button").count()) == (12, 4)
    layers.locator("button").nth(4).click()
    heads.locator("button").nth(2).click()
    wait_for_state(quiet_session, "4,1,91")
    map_ = heat((6, 6), layer=4, head=1)
    assert f"attends most to {name_strongest_patch(map_, (6, 6))}" in read_sentences(quiet_session)[0]
    assert read_sentences(quiet_session)[0].endswith("in layer 5, head 2.")
    assert layers.locator("[aria-pressed=true]").inner_text() == "5"
    figure = quiet_session.page.locator(FLOW + " figure").first
    top = compute_limits(heat("class", layer=4).numpy(), signed=False)[1]
    assert float(figure.locator(".viz-numbers span").last.inner_text()) == pytest.approx(top, rel=0.01)


def test_three_attention_methods_show_their_values_at_one_point(quiet_session):
    canvas = quiet_session.page.locator(FLOW + " canvas").first
    canvas_box = canvas.bounding_box()
    share = canvas_box["width"] / tower().width
    y, x = tower().height // 2, tower().width // 2
    canvas.hover(position={"x": (x + 0.5) * share, "y": (y + 0.5) * share})
    values = quiet_session.page.locator(FLOW + " .viz-linked-value").all_inner_texts()
    model = vizlib.load(VIT)
    best = model.predict(tower())[0].index
    for text, method in zip(values[1:], ("attention-rollout", "attention-relevance"), strict=True):
        expected = vizlib.explain(model, tower(), method, target=best).project_to_photo()[y, x]
        assert float(text) == pytest.approx(expected, rel=0.01)


def test_changing_the_class_redraws_only_relevance_and_keeps_the_pin(session):
    click(session, 6, 8)
    before = session.page.locator(FLOW + " canvas").evaluate_all(
        "canvases => canvases.map((canvas) => canvas.toDataURL())"
    )
    session.page.locator("#bars button").nth(1).click()
    third = f"document.querySelectorAll('{FLOW} canvas')[2].toDataURL()"
    session.page.wait_for_function(f"old => {third} !== old", arg=before[2])
    session.settle()
    after = session.page.locator(FLOW + " canvas").evaluate_all(
        "canvases => canvases.map((canvas) => canvas.toDataURL())"
    )
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]
    session.page.mouse.move(0, 0)
    assert session.page.locator(GRID + " .viz-grid").get_attribute("data-state").endswith(",93")


def test_attention_session_had_no_errors(session):
    assert session.errors == []


def test_layer_head_and_pins_are_written_to_and_read_from_the_url(session, open_checked_session):
    press(session, "Escape")
    wait_for_state(session, "4,1,93")
    assert "&l=5" in session.page.url
    assert "&h=2" in session.page.url
    assert "p=" not in session.page.url
    click(session, 6, 8)
    click(session, 2, 2)
    wait_for_state(session, "4,1,31,93,31")
    assert "&p=7,9;3,3" in session.page.url
    restored = open_checked_session("?" + session.page.url.partition("?")[2])
    wait_for_state(restored, "4,1,,93,31")
    assert restored.page.locator(GRID + " .viz-token-name").all_inner_texts() == ["row 7, column 9", "row 3, column 3"]
    figure = restored.page.locator(FLOW + " figure").first
    top = compute_limits(heat("class", layer=4).numpy(), signed=False)[1]
    assert float(figure.locator(".viz-numbers span").last.inner_text()) == pytest.approx(top, rel=0.01)


def test_url_with_an_unknown_head_and_patch_shows_the_default(open_checked_session):
    session = open_checked_session(QUERY + "&l=12&h=7&p=99,1;3,3")
    wait_for_state(session, "11,-1,,31")


def test_tap_pins_a_patch(session, chromium, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    session = type(session)(context.new_page(), address + QUERY)
    canvas = first_canvas(session)
    canvas.scroll_into_view_if_needed()
    canvas.tap(position=position_of(session, 6, 8))
    wait_for_state(session, "11,-1,93,93")
    canvas.tap(position=position_of(session, 2, 2))
    wait_for_state(session, "11,-1,31,93,31")
    session.page.locator(GRID + " .viz-chip[data-token='31']").tap()
    wait_for_state(session, "11,-1,31,93")
    context.close()


def test_heads_of_a_layer_are_fetched_when_it_is_shown_if_all_exceed_the_budget(open_checked_session, monkeypatch):
    monkeypatch.setattr(dashboard.components.patches, "MAX_MAP_BYTES", 10**6)
    session = open_checked_session(QUERY)
    first_canvas(session).wait_for()
    click(session, 6, 8)
    heads = session.page.locator(GRID + " .viz-multiples").nth(1)
    heads.locator("button").nth(1).click()
    wait_for_state(session, "11,0,,93")
    num_requests = len(session.requests)
    press_at_once(session, "[", "[")
    session.settle()
    assert 0 < len(session.requests) - num_requests < 6  # one request for the layer that stayed, and its response
    wait_for_state(session, "9,0,,93")
    map_ = heat((6, 8), layer=9, head=0)
    assert name_strongest_patch(map_, (6, 8)) in read_sentences(session)[0]
    num_requests = len(session.requests)
    press_at_once(session, "]", "]")
    session.settle()
    assert len(session.requests) == num_requests  # the heads of the last layer were sent with the page
