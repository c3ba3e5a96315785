"""Concurrent sessions, each with its own photo, model and class, do not affect each other."""

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
VISITORS = {  # model, method, and rank of the class that is clicked, from 0
    "tower": (RESNET, "saliency", 1),
    "cheetah": (VIT, "input-x-gradient", 2),
    "grace": (RESNET, "layer-cam", 3),
    "mirrored": (VIT, "attention-relevance", 4),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Write one photo for each visitor and return the files."""
    folder = tmp_path_factory.mktemp("four")
    tower = Image.open(gradio.media.get_image("tower.jpg")).convert("RGB").resize((420, 630))
    images = {
        "tower": tower,
        "cheetah": Image.open(gradio.media.get_image("cheetah.jpg")).convert("RGB").resize((640, 450)),
        "grace": Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"),
        "mirrored": ImageOps.mirror(tower),
    }
    for name, photo in images.items():
        photo.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in images}


def read_limits(session) -> list[float]:
    """Return the values at the ends of the colour bar."""
    numbers = re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", session.get_text(f"{HEAT} .viz-numbers").replace("−", "-"))
    return [float(numbers[0]), float(numbers[-1])]


def click_now(session, selector: str, nth: int = 0) -> None:
    """Click without waiting, so that four clicks come at the same moment."""
    session.page.evaluate("([where, nth]) => document.querySelectorAll(where)[nth].click()", [selector, nth])


def test_four_concurrent_sessions_each_show_their_own_numbers(open_isolated_session, photos):
    sessions = {name: open_isolated_session(f"?m={VISITORS[name][0]}&img=ex:cheetah") for name in VISITORS}
    for session in sessions.values():
        session.page.locator("#photo button[aria-label='Remove Image']").click()
    for session in sessions.values():
        session.page.locator("#photo input[type=file]").wait_for(state="attached")
    for name, session in sessions.items():
        session.upload(photos[name])
    predictions = {name: vizlib.load(VISITORS[name][0]).predict(photos[name], top=5) for name in VISITORS}
    for name, session in sessions.items():
        labels = "[...document.querySelectorAll('#bars .viz-name')].map((node) => node.textContent).join('|')"
        session.wait_until(f"() => {labels} === '{'|'.join(row.label for row in predictions[name])}'")
    for name, session in sessions.items():
        click_now(session, "#bars .viz-class", VISITORS[name][2])
    for name, session in sessions.items():
        label = predictions[name][VISITORS[name][2]].label
        session.wait_until(f"() => document.querySelector('#why-caption h2').textContent === 'Why {label}?'")
    for name, session in sessions.items():
        click_now(session, f"#why-methods [data-key={VISITORS[name][1]}]")
    for name, session in sessions.items():
        model, method, place = VISITORS[name]
        target = predictions[name][place]
        expected = vizlib.explain(vizlib.load(model), photos[name], method, target.index)
        session.wait_until(
            f"() => document.querySelector('{HEAT} canvas').dataset.drawn === '{model}_{method}_{target.index}.png'",
        )
        session.settle()
        assert session.get_target() == target.index
        assert session.get_text("#why-caption h2") == f"Why {target.label}?"
        low, high = compute_limits(expected.project_to_photo(), signed=expected.signed)
        assert read_limits(session) == pytest.approx([low, high], rel=0.02, abs=2e-3 * high)  # the page has 840 pixels
        assert session.page.get_by_role("alert").count() == 0


@pytest.fixture
def batches(monkeypatch):
    """Count the batches that the stream of each model yielded, and list the models whose stream has ended."""
    counts, ended = {RESNET: 0, VIT: 0}, []
    original = vizlib.explain_stream

    def counting(model, *args, **kwargs):
        try:
            for step in original(model, *args, **kwargs):
                counts[model.name] += 1
                yield step
                time.sleep(0.3)  # so that there is time to stop
        finally:
            ended.append(model.name)

    monkeypatch.setattr(vizlib, "explain_stream", counting)
    monkeypatch.setattr(vizlib, "estimate", lambda *_, **__: 40.0)  # so that nothing starts without a click
    return counts, ended


def test_stop_ends_only_the_work_of_its_own_session(open_isolated_session, batches):
    counts, ended = batches
    first, second = (open_isolated_session(f"?m={model}&img=ex:grace_hopper&w=rise") for model in (RESNET, VIT))
    button, running = (
        "#why-progress .viz-primary-button",
        "() => document.querySelector('#why-progress [data-state=running]')",
    )
    for session in (first, second):
        session.page.locator(button).click()
        if session is first:
            session.wait_until(running)
    assert (counts[RESNET] > 0, counts[VIT], ended) == (True, 0, [])  # streams run one after the other
    first.page.locator(button).click()
    second.wait_until(running)
    second.wait_on_server(lambda: counts[VIT] > 2)
    assert ended == [RESNET]
    assert first.get_text("#why-progress p").startswith("Stopped after ")
    before = counts[VIT]
    click_now(first, "#bars .viz-class", 1)  # another class in one session ends nothing in the other
    first.settle()
    second.wait_on_server(lambda: counts[VIT] > before + 1)
    assert ended == [RESNET]
    second.page.locator(button).click()
    assert second.get_text("#why-progress p").startswith("Stopped after ")
    second.wait_on_server(lambda: len(ended) == 2)
    assert ended == [RESNET, VIT]


def test_leaving_before_the_first_batch_ends_the_work(open_isolated_session, batches):
    """The page is closed before it opens the event stream, by whose end gradio notices that a client is gone."""
    counts, ended = batches
    session = open_isolated_session(f"?m={VIT}&img=ex:grace_hopper&w=rise")
    session.page.route("**/queue/data*", lambda route: None)
    session.page.locator("#why-progress .viz-primary-button").click()
    session.wait_on_server(lambda: counts[VIT] > 0)
    before = counts[VIT]
    session.page.goto("about:blank")
    session.errors.clear()  # about the aborted request
    session.wait_on_server(lambda: ended == [VIT])
    assert counts[VIT] <= before + 2  # of 28
