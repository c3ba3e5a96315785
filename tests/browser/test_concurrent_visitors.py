"""Four people use the page at once, each with an own photo, model and class: nobody sees or stops what is another's."""

from __future__ import annotations

import re
import time

import gradio.media
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageOps

import vizlib
from vizlib.render import overlay as render

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HEAT = "#why-heat"
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


def ends(visit) -> list[float]:
    """The raw values at the ends of the colour bar."""
    numbers = re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", visit.said(f"{HEAT} .viz-numbers").replace("−", "-"))
    return [float(numbers[0]), float(numbers[-1])]


def press(visit, selector: str, nth: int = 0) -> None:
    """A click that waits for nothing, so that four come at the same moment."""
    visit.page.evaluate("([where, nth]) => document.querySelectorAll(where)[nth].click()", [selector, nth])


def test_four_at_once_each_see_their_own_numbers(visitors, photos):
    visits = {name: visitors(f"?m={WHO[name][0]}&img=ex:cheetah") for name in WHO}
    for visit in visits.values():
        visit.page.locator("#photo button[aria-label='Remove Image']").click()
    for visit in visits.values():
        visit.page.locator("#photo input[type=file]").wait_for(state="attached")
    for name, visit in visits.items():
        visit.upload(photos[name])
    answers = {name: vizlib.load(WHO[name][0]).predict(photos[name], top=5) for name in WHO}
    for name, visit in visits.items():
        shown = "[...document.querySelectorAll('#bars .viz-name')].map((one) => one.textContent).join('|')"
        visit.until(f"() => {shown} === '{'|'.join(one.label for one in answers[name])}'")
    for name, visit in visits.items():
        press(visit, "#bars .viz-class", WHO[name][2])
    for name, visit in visits.items():
        visit.until(
            f"() => document.querySelector('#why-words h2').textContent === 'Why {answers[name][WHO[name][2]].label}?'"
        )
    for name, visit in visits.items():
        press(visit, f"#why-methods [data-key={WHO[name][1]}]")
    for name, visit in visits.items():
        model, method, place = WHO[name]
        target = answers[name][place]
        expected = vizlib.explain(vizlib.load(model), photos[name], method, target.index)
        visit.until(
            f"() => document.querySelector('{HEAT} canvas').dataset.drawn === '{model}_{method}_{target.index}.png'",
        )
        visit.settle()
        assert visit.target() == target.index
        assert visit.said("#why-words h2") == f"Why {target.label}?"
        low, high = render.limits_of(expected.on_photo(), signed=expected.signed)
        assert ends(visit) == pytest.approx([low, high], rel=0.02, abs=2e-3 * high)  # the page has 840 pixels
        assert visit.page.get_by_role("alert").count() == 0


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


def test_a_stop_ends_only_the_work_of_who_pressed_it(visitors, batches):
    given, ended = batches
    one, other = (visitors(f"?m={model}&img=ex:grace_hopper&w=rise") for model in (RESNET, VIT))
    button, running = "#why-progress .viz-begin", "() => document.querySelector('#why-progress [data-state=running]')"
    for visit in (one, other):
        visit.page.locator(button).click()
        if visit is one:
            visit.until(running)
    assert (given[RESNET] > 0, given[VIT], ended) == (True, 0, [])  # they wait for each other
    one.page.locator(button).click()
    other.until(running)
    other.goes_on(lambda: given[VIT] > 2)
    assert ended == [RESNET]
    assert one.said("#why-progress p").startswith("Stopped after ")
    before = given[VIT]
    press(one, "#bars .viz-class", 1)  # another class on the one page ends nothing on the other
    one.settle()
    other.goes_on(lambda: given[VIT] > before + 1)
    assert ended == [RESNET]
    other.page.locator(button).click()
    assert other.said("#why-progress p").startswith("Stopped after ")
    other.goes_on(lambda: len(ended) == 2)
    assert ended == [RESNET, VIT]


def test_who_leaves_before_the_first_batch_is_through_leaves_no_work_behind(visitors, batches):
    """The page is gone before it began to listen for an answer, which is how gradio itself hears of it."""
    given, ended = batches
    visit = visitors(f"?m={VIT}&img=ex:grace_hopper&w=rise")
    visit.page.route("**/queue/data*", lambda route: None)
    visit.page.locator("#why-progress .viz-begin").click()
    visit.goes_on(lambda: given[VIT] > 0)
    before = given[VIT]
    visit.page.goto("about:blank")
    visit.complaints.clear()  # of the answer that was broken off
    visit.goes_on(lambda: ended == [VIT])
    assert given[VIT] <= before + 2  # of 28
