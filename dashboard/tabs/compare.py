"""Compare: two models and two classes on one colour scale, how far their maps agree, and what three starts teach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

import vizlib
from dashboard.components.base import box_of, part
from dashboard.components.linked import Scale, item, linked
from dashboard.selection import Selection
from dashboard.shared import Shared
from dashboard.starts import compared
from dashboard.study import Study
from dashboard.words import NO_PHOTO, alternative, caption
from vizlib import Attribution, render
from vizlib.agreement import seen_by_both
from vizlib.methods.base import MANY_PASSES
from vizlib.methods.registry import METHODS
from vizlib.wording import percent, short

TITLE = "Compare"
FIRST = "grad-cam"
STEPS = ("share of each model’s strongest", "raw values")
FINE = 168  # longest side of the photo a difference is drawn on, in pixels
TOP = 0.2  # the share of strongest places whose overlap is told
ALIKE = {
    0.7: "much alike",
    0.4: "partly alike",
    0.1: "hardly alike",
    -0.1: "as chance would",
    -1.1: "the other way round",
}
CAVEAT = "Agreement is not truth: two models that learned from the same photos can be wrong together."


class Chosen(NamedTuple):
    """What is compared; classes are the first model's, `classes[i][j]` is what model `i` calls class `j`."""

    models: tuple[str, str]
    method: str
    classes: tuple[tuple[int, int], tuple[int, int]]


def in_common(a: vizlib.Model, b: vizlib.Model) -> dict[int, int]:
    """The classes both models know: the first one's number to the second one's, by label or a name they share."""
    if a.labels == b.labels:
        return {index: index for index in range(len(a.labels))}
    named = {name: index for index, label in reversed(list(enumerate(b.labels))) for name in _names(label)}
    whole = {label.lower(): index for index, label in enumerate(b.labels)}
    found = {}
    for index, label in enumerate(a.labels):
        names = [label.lower()] if label.lower() in whole else [name for name in _names(label) if name in named]
        if names:
            found[index] = whole.get(names[0], named.get(names[0], 0))
    return found


def choose(
    study: Study,
    photo: Image.Image,
    selection: Selection,
    other: str | None = None,
    method: str | None = None,
    second: int | None = None,
) -> Chosen | None:
    """What is compared: as asked for where it fits, else with the other bundled model and what that one sees.

    The second class is the contrast where there is one, else the other model's likeliest, or where that is the chosen
    class already the first one's next likeliest. Nothing where there is no other model, or it
    does not know the chosen class.
    """
    others = [name for name in study.catalog.names if name != selection.model]
    if not others:
        return None
    models = selection.model, other if other in others else others[0]
    common = in_common(*map(study.catalog.get, models))
    if selection.target not in common:
        return None
    back = {theirs: ours for ours, theirs in common.items()}
    theirs = [back.get(one.index) for one in study.predictions(photo, models[1], 1)]
    ours = [one.index for one in study.predictions(photo, models[0], 10**6)]
    free = [
        index for index in (second, selection.against, *theirs, *ours) if index in common and index != selection.target
    ]
    if not free:
        return None
    fitting = methods(study, models)
    method = next(name for name in (method, FIRST, *fitting) if name in fitting)
    classes = selection.target, free[0]
    return Chosen(models, method, (classes, (common[classes[0]], common[classes[1]])))


def methods(study: Study, models: tuple[str, str]) -> list[str]:
    """The methods that fit both models and take no more than a few passes."""
    first, second = (vizlib.methods(study.catalog.get(name)) for name in models)
    return [name for name in first if name in second and METHODS[name].cost != MANY_PASSES]


def maps(study: Study, photo: Image.Image, chosen: Chosen) -> list[list[Attribution]]:
    """The map of each model (rows) for each class (columns)."""
    return [
        [study.explanation(photo, name, target, chosen.method) for target in targets]
        for name, targets in zip(chosen.models, chosen.classes, strict=True)
    ]


def strongest(answers: list[Attribution]) -> float:
    """The largest value by size in the maps of one model: what its share of the strongest is a share of."""
    return max(answer.heat.abs().max().item() for answer in answers) or 1.0


def difference(a: Attribution, b: Attribution, factors: tuple[float, float]) -> tuple[np.ndarray, tuple]:
    """The first map less the second where both models looked, in shares and raw ("2 h w"), and where on the photo."""
    left, right, box = seen_by_both(a, b, FINE)
    return np.stack([left * factors[0] - right * factors[1], left - right]), box


def picture(study: Study, photo: Image.Image, chosen: Chosen) -> dict[str, Any]:
    """The four maps on one scale, and the differences between models and between classes on another."""
    answers = maps(study, photo, chosen)
    factors = [1 / strongest(row) for row in answers]
    signed = METHODS[chosen.method].signed
    names = [short(answer.label) for answer in answers[0]]

    def one(i: int, j: int) -> dict[str, Any]:
        answer = answers[i][j]
        alt = f"{answer.model}: {alternative(answer)}"
        said, smooth = percent(answer.probability), not answer.patches
        box, units = box_of(answer.geometry), (factors[i], 1.0)
        return item(names[j], answer.heat.numpy()[None], box, 0, alt=alt, text=said, smooth=smooth, factors=units)

    drawn: list[np.ndarray] = []

    def less(name: str, a: tuple[int, int], b: tuple[int, int]) -> dict[str, Any]:
        pair = answers[a[0]][a[1]], answers[b[0]][b[1]]
        values, box = difference(*pair, (factors[a[0]], factors[b[0]]))
        drawn.append(values)
        said, smooth = told(*pair), not any(answer.patches for answer in pair)
        return item(name, values, box, 1, alt=f"Difference: {name}; {said}.", text=said, smooth=smooth)

    between = [less(f"{names[0]} − {names[1]}", (i, 0), (i, 1)) for i in (0, 1)]
    rows = [(chosen.models[i], [one(i, 0), one(i, 1), between[i]]) for i in (0, 1)]
    rows.append(("The first model − the second", [less(names[j], (0, j), (1, j)) for j in (0, 1)]))
    heats = [np.concatenate([a.heat.numpy().ravel() * f for a in row]) for row, f in zip(answers, factors, strict=True)]
    raw = [answer.heat.numpy().ravel() for row in answers for answer in row]
    scales = [
        Scale(
            "All four maps",
            [render.limits_of(np.concatenate(values), signed=signed) for values in (heats, raw)],
            signed,
            ("against", "for") if signed else ("", ""),
        ),
        Scale(
            "All differences",
            [render.limits_of(np.concatenate([v[k].ravel() for v in drawn]), signed=True) for k in (0, 1)],
            True,
            ("second", "first"),
        ),
    ]
    return linked(rows, scales, photo, label=f"{chosen.method} of two models for two classes", steps=STEPS)


def told(a: Attribution, b: Attribution) -> str:
    """Two numbers on two maps, in words."""
    found = vizlib.agreement(a, b, TOP)
    rank = "one is flat" if np.isnan(found.correlation) else f"rank correlation {_minus(found.correlation)}"
    return f"{rank} · {found.overlap * 100:.0f} % of the top {TOP * 100:.0f} % shared"


def verdict(study: Study, photo: Image.Image, chosen: Chosen) -> str:
    """Whether the models look at the same places for the chosen class, in words."""
    first, second = (row[0] for row in maps(study, photo, chosen))
    found = vizlib.agreement(first, second, TOP)
    label = short(first.label)
    if np.isnan(found.correlation):
        return f"For {label} one of the two maps is the same everywhere, so there is nothing to compare."
    alike = next(words for least, words in ALIKE.items() if found.correlation >= least)
    return (
        f"For {label} the two models order the places of this photo {alike}: rank correlation "
        f"{_minus(found.correlation)}. Of the strongest fifth of each, {found.overlap * 100:.0f} % is the same; "
        "chance would give 20 %."
    )


def draw(
    study: Study,
    photo: Image.Image | None,
    selection: Selection | None,
    other: str | None = None,
    method: str | None = None,
    second: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], str]:
    """The three menus with what fits, the pictures, and what they say."""
    if photo is None or selection is None:
        return gr.update(), gr.update(), gr.update(), {}, caption("No photo yet", NO_PHOTO)
    chosen = choose(study, photo, selection, other, method, second)
    others = [row for row in study.catalog.choices() if row[1] != selection.model]
    if chosen is None:
        known = short(study.catalog.get(selection.model).labels[selection.target])
        shown = other if other in [name for _, name in others] else (others[0][1] if others else None)
        words = f"{shown} knows no class called {known}." if shown else "There is no other model here."
        return (
            gr.update(choices=others, value=shown),
            gr.update(),
            gr.update(),
            {},
            caption("Nothing to compare", words),
        )
    first = study.catalog.get(chosen.models[0])
    common = in_common(first, study.catalog.get(chosen.models[1]))
    classes = sorted((short(first.labels[index]), index) for index in common if index != selection.target)
    return (
        gr.update(choices=others, value=chosen.models[1]),
        gr.update(choices=methods(study, chosen.models), value=chosen.method),
        gr.update(choices=classes, value=chosen.classes[0][1]),
        picture(study, photo, chosen),
        caption("Do they look at the same places?", verdict(study, photo, chosen), CAVEAT),
    )


def starts(value: Mapping[str, Any]) -> str:
    """What the recorded comparison of three starts teaches, with its own numbers."""
    last = {line["name"]: line["y"][-1] for line in value["lines"] if not line["faint"]}
    ends = ", ".join(f"{name} {top1:.1f} %" for name, top1 in last.items())
    return caption(
        "What a model brings along",
        f"The same network on the same photos, from three starts, is right this often in the end: {ends}.",
        "So where two models look at different places, ask first what each had seen before: most of what a network "
        "looks for it has brought along.",
    )


def build(shared: Shared) -> None:
    """The menus, the pictures, their words, and the curves of three starts below."""
    words = gr.HTML(elem_id="compare-words", apply_default_css=False)
    with gr.Row(elem_id="compare-menus"):
        other = gr.Dropdown([], label="Compare with", elem_id="compare-model", interactive=True, min_width=220)
        method = gr.Dropdown([], label="Method", elem_id="compare-method", interactive=True, min_width=220)
        second = gr.Dropdown([], label="And the class", elem_id="compare-class", interactive=True, min_width=220)
    pictures = part("linked", elem_id="compare-maps")
    outputs = [other, method, second, pictures, words]
    curves = compared()[0]
    if curves:
        with gr.Row(equal_height=False, elem_classes="viz-section"):
            with gr.Column(scale=4, min_width=280):
                gr.HTML(starts(curves), apply_default_css=False)
            with gr.Column(scale=6, min_width=320):
                part("curves", curves, elem_id="compare-starts")

    def waiting(photo: Image.Image | None, selection: Selection | None) -> tuple[dict[str, Any], None]:
        return {} if photo is None or selection is None else {"waiting": [*selection]}, None

    def again(
        photo: Image.Image | None,
        selection: Selection | None,
        other: str | None,
        method: str | None,
        second: int | None,
    ) -> tuple:
        return draw(shared.study, photo, selection, other, method, second)

    # Another model is asked only when somebody looks: the pictures say so once they are on the screen.
    shared.on_selection(waiting, [], [pictures, second])
    for event in (pictures.select, other.input, method.input, second.input):
        shared.on(event, again, [other, method, second], outputs)


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _names(label: str) -> list[str]:
    return [name.strip() for name in label.lower().split(",")]
