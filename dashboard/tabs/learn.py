"""The Learn tab: eleven short steps, computed on the selected photo and model."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.custom_component import custom_component
from dashboard.components.lesson import build_lesson, mark_lesson_pending_js
from dashboard.i18n.language import get_request_language
from dashboard.i18n.translate import get_page_texts, translate_to
from dashboard.services.analysis_service import AnalysisService
from dashboard.services.prompted_name import get_catalog_name
from dashboard.state.context import PRIVATE_EVENT, TabContext
from dashboard.state.selection import Selection
from dashboard.tabs.lessons import explanation_lessons, layer_lessons
from dashboard.tabs.lessons.lesson_context import LessonContext
from dashboard.tabs.lessons.pictures import Lesson, encode_lesson_input

TITLE = "Learn"
STEPS = {
    "hook": layer_lessons.build_hook_lesson,
    "logits": explanation_lessons.build_logit_lesson,
    "kernels": layer_lessons.build_kernel_lesson,
    "activations": layer_lessons.build_activation_lesson,
    "gradients": explanation_lessons.build_gradient_lesson,
    "patches": layer_lessons.build_patch_lesson,
    "attention": explanation_lessons.build_attention_lesson,
    "limits": explanation_lessons.build_limits_lesson,
    "randomise": explanation_lessons.build_randomisation_lesson,
    "product": explanation_lessons.build_product_lesson,
    "backward": layer_lessons.build_backward_hook_lesson,
}
SOFTMAX_STEPS = {"logits", "gradients", "attention", "limits", "product"}  # about classes that exclude each other
TOPICS_WITHOUT_ATTENTION = {"patches": "fields", "attention": "energy"}


def compute_lesson(service: AnalysisService, photo: Image.Image, selection: Selection, step: int) -> Lesson:
    """Return the result of a step of the Learn tab, counted from 0; the first where there is no such step."""
    step = step if 0 <= step < len(STEPS) else 0
    context = LessonContext(service, photo, selection)
    return service.get_lesson(
        photo, (selection.model, selection.target, selection.against, step), lambda: list(STEPS.values())[step](context)
    )


def compute_content(
    service: AnalysisService,
    photo: Image.Image | None,
    selection: Selection | None,
    step: int = 0,
    language: str = "en",
) -> Any:
    """Return the content of the Learn tab: one step with its texts in a language.

    Without a photo the value is a sentence; without a selection, while the page opens, the component stays as it is.
    """
    if photo is None:
        return {"empty": translate_to(language, "common.no-photo")}
    if selection is None:
        return gr.skip()
    step = step if 0 <= step < len(STEPS) else 0
    if list(STEPS)[step] in SOFTMAX_STEPS and service.catalog.get(selection.model).output_kind != "softmax":
        return {"empty": translate_to(language, "learn.softmax-only", {"model": get_catalog_name(selection.model)})}
    lesson = compute_lesson(service, photo, selection, step)

    def translate_lesson(key: str, facts: Any = None) -> str:
        return translate_to(language, f"learn.{key}", facts).replace(" %", "\u00a0%")

    has_attention = LessonContext(service, photo, selection).has_attention_relevance
    topics = [name if has_attention else TOPICS_WITHOUT_ATTENTION.get(name, name) for name in STEPS]
    labels = {key: translate_lesson(key) for key in ("steps", "previous", "next", "code", "busy", "frame")}
    labels["step"] = translate_lesson("step", {"step": str(step + 1), "steps": str(len(STEPS))})
    labels["see"] = translate_lesson("open-tab", {"tab": get_page_texts(language)[f"page.tab.{lesson.tab}"]})
    labels["other"] = translate_lesson("other", {"model": lesson.other_model})
    return build_lesson(
        step,
        [translate_lesson(f"{topic}.title") for topic in topics],
        [translate_lesson(key, lesson.facts) for key in lesson.text_keys],
        [
            {
                **picture.value,
                "caption": translate_lesson(picture.caption_key, picture.facts),
                "captions": [translate_lesson(picture.caption_key, facts) for facts in picture.frame_facts],
            }
            for picture in lesson.pictures
        ],
        labels,
        encode_lesson_input(service.render_model_input(photo, selection.model)),
        columns=lesson.columns,
        code=lesson.code,
        tab=lesson.tab,
        method=lesson.method,
        other_model=lesson.other_model,
        frames=[translate_lesson("trained"), *(name or translate_lesson("own") for name in lesson.frames[1:])]
        if lesson.frames
        else [],
        product={
            "label": translate_lesson("product.label"),
            "weights": [translate_lesson(key, lesson.facts) for key in lesson.weight_keys],
            "matrices": [{"name": name, "rows": rows} for name, rows in lesson.matrices.items()],
        }
        if lesson.matrices
        else None,
    )


def build_tab(context: TabContext) -> gr.HTML:
    """Build the Learn tab and return its component, which requests a step when it is visible or its inputs change."""
    component = custom_component("lesson", elem_id="learn")

    def show_step(
        photo: Image.Image | None, selection: Selection | None, event: gr.SelectData, request: gr.Request
    ) -> dict[str, Any]:
        return compute_content(context.service, photo, selection, int(event.index), get_request_language(request))

    context.on_event(component.select, show_step, [], [component])
    context.selection.change(None, [component], [component], js=mark_lesson_pending_js(), **PRIVATE_EVENT)
    return component
