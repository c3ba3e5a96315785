"""Four people use the page at once, each with an own photo, model and class: nobody sees or stops what is another's."""

from __future__ import annotations

import re
import time

import gradio.media
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageOps

import vizlib
from vizlib.render.color_scale import compute_limits

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HEAT = "#why-heatmap"
WHO = {  # each visitor's model, method, and how many places below the first the class that is clicked stands
    "tower": (RESNET, "saliency", 1),
    "cheetah": (VIT, "input-x-gradient", 2),
    "grace": (RESNET, "layer-cam", 3),
    "mirrored": (VIT, "attention-relevance", 4),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A photo for each visitor, as a file to upload."""
    folder = tmp_path_factory.mktemp("four")
    tower = Image.open(gradio.media.get_image("tower.jpg")).convert("RGB").resize((420, 630))
    found = {
        "tower": tower,
        "cheetah": Image.open(gradio.media.get_image("cheetah.jpg")).convert("RGB").resize((640, 450)),
        "grace": Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"),
        "mirrored": ImageOps.mirror(tower),
    }
    for name, photo in found.items():
        photo.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in found}


def ends(session) -> list[float]:
    """The raw values at the ends of the colour bar."""
    numbers = re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", session.get_text(f"{HEAT} .viz-numbers").replace("−", "-"))
    return [float(numbers[0]), float(numbers[-1])]


def press(session, selector: str, nth: int = 0) -> None:
    """A click that waits for nothing, so that four come at the same moment."""
    session.page.evaluate("([where, nth]) => document.querySelectorAll(where)[nth].click()", [selector, nth])


def test_four_at_once_each_see_their_own_numbers(open_isolated_session, photos):
    sessions = {name: open_isolated_session(f"?m={WHO[name][0]}&img=ex:cheetah") for name in WHO}
    for session in sessions.values():
        session.page.locator("#photo button[aria-label='Remove Image']").click()
    for session in sessions.values():
        session.page.locator("#photo input[type=file]").wait_for(state="attached")
    for name, session in sessions.items():
        session.upload(photos[name])
    answers = {name: vizlib.load(WHO[name][0]).predict(photos[name], top=5) for name in WHO}
    for name, session in sessions.items():
        shown = "[...document.querySelectorAll('#bars .viz-name')].map((one) => one.textContent).join('|')"
        session.wait_until(f"() => {shown} === '{'|'.join(one.label for one in answers[name])}'")
    for name, session in sessions.items():
        press(session, "#bars .viz-class", WHO[name][2])
    for name, session in sessions.items():
        session.wait_until(
            f"() => document.querySelector('#why-caption h2').textContent === 'Why {answers[name][WHO[name][2]].label}?'"
        )
    for name, session in sessions.items():
        press(session, f"#why-methods [data-key={WHO[name][1]}]")
    for name, session in sessions.items():
        model, method, place = WHO[name]
        target = answers[name][place]
        expected = vizlib.explain(vizlib.load(model), photos[name], method, target.index)
        session.wait_until(
            f"() => document.querySelector('{HEAT} canvas').dataset.drawn === '{model}_{method}_{target.index}.png'",
        )
        session.settle()
        assert session.get_target() == target.index
        assert session.get_text("#why-caption h2") == f"Why {target.label}?"
        low, high = compute_limits(expected.on_photo(), signed=expected.signed)
        assert ends(session) == pytest.approx([low, high], rel=0.02, abs=2e-3 * high)  # the page has 840 pixels
        assert session.page.get_by_role("alert").count() == 0


@pytest.fixture
def batches(monkeypatch):
    """How many batches the stream of each model gave, and which of them have ended."""
    given, ended = {RESNET: 0, VIT: 0}, []
    real = vizlib.explain_stream

    def counting(model, *how, **knobs):
        try:
            for step in real(model, *how, **knobs):
                given[model.name] += 1
                yield step
                time.sleep(0.3)  # so that a stop comes in the middle on any machine
        finally:
            ended.append(model.name)

    monkeypatch.setattr(vizlib, "explain_stream", counting)
    monkeypatch.setattr(vizlib, "estimate", lambda *_, **__: 40.0)  # so that nothing begins by itself
    return given, ended


def test_a_stop_ends_only_the_work_of_who_pressed_it(open_isolated_session, batches):
    given, ended = batches
    one, other = (open_isolated_session(f"?m={model}&img=ex:grace_hopper&w=rise") for model in (RESNET, VIT))
    button, running = (
        "#why-progress .viz-primary-button",
        "() => document.querySelector('#why-progress [data-state=running]')",
    )
    for session in (one, other):
        session.page.locator(button).click()
        if session is one:
            session.wait_until(running)
    assert (given[RESNET] > 0, given[VIT], ended) == (True, 0, [])  # they wait for each other
    one.page.locator(button).click()
    other.wait_until(running)
    other.wait_on_server(lambda: given[VIT] > 2)
    assert ended == [RESNET]
    assert one.get_text("#why-progress p").startswith("Stopped after ")
    before = given[VIT]
    press(one, "#bars .viz-class", 1)  # another class on the one page ends nothing on the other
    one.settle()
    other.wait_on_server(lambda: given[VIT] > before + 1)
    assert ended == [RESNET]
    other.page.locator(button).click()
    assert other.get_text("#why-progress p").startswith("Stopped after ")
    other.wait_on_server(lambda: len(ended) == 2)
    assert ended == [RESNET, VIT]


def test_who_leaves_before_the_first_batch_is_through_leaves_no_work_behind(open_isolated_session, batches):
    """The page is gone before it began to listen for an answer, which is how gradio itself hears of it."""
    given, ended = batches
    session = open_isolated_session(f"?m={VIT}&img=ex:grace_hopper&w=rise")
    session.page.route("**/queue/data*", lambda route: None)
    session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_on_server(lambda: given[VIT] > 0)
    before = given[VIT]
    session.page.goto("about:blank")
    session.errors.clear()  # of the answer that was broken off
    session.wait_on_server(lambda: ended == [VIT])
    assert given[VIT] <= before + 2  # of 28
