"""Learn: eight short steps on the photo and the model at hand, in the visitor's language."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.base import custom_component
from dashboard.components.lesson import build_lesson, mark_pending_js
from dashboard.i18n.translate import language_of_request as language_asked
from dashboard.i18n.translate import page_texts, translate_to
from dashboard.services.analysis_service import AnalysisService
from dashboard.state.context import PRIVATE_EVENT, TabContext
from dashboard.state.selection import Selection
from dashboard.tabs.lessons import explanation_lessons as reasons
from dashboard.tabs.lessons import layer_lessons as layers
from dashboard.tabs.lessons.base import Asked, Lesson, seen

TITLE = "Learn"
STEPS = {
    "hook": layers.hook,
    "logits": reasons.logits,
    "kernels": layers.kernels,
    "activations": layers.activations,
    "gradients": reasons.gradients,
    "patches": layers.patches,
    "attention": reasons.attention,
    "limits": reasons.limits,
}
INSTEAD = {"patches": "fields", "attention": "energy"}  # what a network without attention is asked


def taught(service: AnalysisService, photo: Image.Image, selection: Selection, step: int) -> Lesson:
    """What a step finds out on a photo; a step that does not exist is the first."""
    step = step if 0 <= step < len(STEPS) else 0
    asked = Asked(service, photo, selection)
    return service.get_lesson(photo, (selection.model, selection.target, selection.against, step), lambda: list(STEPS.values())[step](asked))


def draw(
    service: AnalysisService, photo: Image.Image | None, selection: Selection | None, step: int = 0, language: str = "en"
) -> Any:
    """A step as it is shown, in words; without a photo what to do about it."""
    if photo is None:
        return {"empty": translate_to(language, "learn.empty")}
    if selection is None:  # the page is still being opened
        return gr.skip()
    step = step if 0 <= step < len(STEPS) else 0
    found = taught(service, photo, selection, step)

    def told(key: str, facts: Any = None) -> str:
        return translate_to(language, f"learn.{key}", facts).replace(" %", "\u00a0%")

    with_attention = Asked(service, photo, selection).relevance
    topics = [name if with_attention else INSTEAD.get(name, name) for name in STEPS]
    labels = {key: told(key) for key in ("steps", "previous", "next", "code", "busy")}
    labels["step"] = told("step", {"step": str(step + 1), "steps": str(len(STEPS))})
    labels["see"] = told("open-tab", {"tab": page_texts(language)[f"page.tab.{found.tab}"]})
    labels["other"] = told("other", {"model": found.other})
    return build_lesson(
        step,
        [told(f"{topic}.title") for topic in topics],
        [told(text, found.facts) for text in found.texts],
        [{**one.value, "caption": told(one.caption, one.facts)} for one in found.pictures],
        labels,
        seen(service.render_model_input(photo, selection.model)),
        columns=found.columns,
        code=found.code,
        tab=found.tab,
        method=found.method,
        other_model=found.other,
    )


def build(shared: TabContext) -> gr.HTML:
    """One part that is drawn when it is seen, and again when what it is about has changed."""
    shown = custom_component("lesson", elem_id="learn")

    def step(
        photo: Image.Image | None, selection: Selection | None, event: gr.SelectData, request: gr.Request
    ) -> dict[str, Any]:
        return draw(shared.service, photo, selection, int(event.index), language_asked(request))

    shared.on_event(shown.select, step, [], [shown])
    shared.selection.change(None, [shown], [shown], js=mark_pending_js(), **PRIVATE_EVENT)
    return shown
