"""Inside: a network as a tree, what the channels and heads of a layer add to a class, and the answer without some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.base import choosing, part
from dashboard.components.desk import Choice, answered, refused, told
from dashboard.components.heat import heat
from dashboard.components.silence import silence
from dashboard.components.thumbs import thumb, thumbs
from dashboard.components.tree import choosable, tree
from dashboard.languages import tell
from dashboard.selection import LONGEST, Selection, parse
from dashboard.shared import PLUMBING, Shared
from dashboard.study import Study, Unit
from dashboard.tabs import kernels
from dashboard.words import caption, no_photo
from vizlib import render
from vizlib.wording import short

TITLE = "Inside"
FOR, AGAINST = 36, 12  # units on a sheet: those that speak most for the class, and most against it


class At(NamedTuple):
    """Where a visitor is: a layer of a model, one of its units, and which units are switched off."""

    model: str
    layer: str
    number: int | None  # of the unit a person chose; None is the first of the sheet
    off: tuple[Unit, ...]


class View(NamedTuple):
    """A layer seen by one photo, and what each of its units adds to the class."""

    maps: Float[np.ndarray, "units rows columns"]
    placed: bool  # whether they lie on the photo
    heads: bool
    added: Float[np.ndarray, " units"] | None  # None where it cannot be told unit by unit
    label: str  # of the class, or of the two where one is set against the other
    logit: float


def settled(study: Study, selection: Selection, at: At | None) -> At:
    """Where a visitor is on this model: as before, or at the layer class activation maps are drawn from."""
    model = study.catalog.get(selection.model)
    names = choosable(model)
    if at is None or at.model != selection.model:
        return At(selection.model, model.cam_layer or names[-1], None, ())
    return at if at.layer in names else at._replace(layer=model.cam_layer or names[-1], number=None)


def linked(
    study: Study, photo: Image.Image, selection: Selection, unit: str | None, off: str | None
) -> tuple[At, list[str]]:
    """Where an address sends a visitor by its keys `u` and `o`, and which of the two ask for what is not there."""
    at, unknown, layers = settled(study, selection, None), [], choosable(study.catalog.get(selection.model))

    def found(text: str) -> Unit | None:
        layer, _, number = text.partition(":")
        seen = view(study, photo, selection, layer) if layer in layers else None
        return Unit(layer, int(number or 0), seen.heads) if seen and int(number or 0) < len(seen.maps) else None

    if unit:
        one = found(unit)
        if one is None:
            unknown.append("u")
        else:
            at = at._replace(layer=one.layer, number=one.number if ":" in unit else None)
    if off:
        units = tuple(one for one in map(found, off.split(";")) if one is not None)
        if len(units) < off.count(";") + 1:
            unknown.append("o")
        else:
            at = at._replace(off=units)
    return at, unknown


def keys(study: Study, selection: Selection | None, at: At | None) -> dict[str, str | None]:
    """What an address calls the place where a visitor is; nothing where everybody begins."""
    if at is None or selection is None:
        return {"u": None, "o": None}
    number = "" if at.number is None else f":{at.number}"
    off = ";".join(f"{one.layer}:{one.number}" for one in at.off)
    first = not number and at.layer == settled(study, selection, None).layer
    return {"u": None if first else at.layer + number, "o": off if 0 < len(off) <= LONGEST else None}


def view(study: Study, photo: Image.Image, selection: Selection, layer: str) -> View:
    """A layer's channels, or an attention layer's heads."""
    found = study.contributions(photo, selection.model, selection.target, layer, selection.against)
    attention = study.attention(photo, selection.model).get(layer)
    tokens = study.catalog.get(selection.model).tokens
    if attention is not None and tokens is not None:
        rows = attention[:, tokens.read[0]] if tokens.read else attention.mean(1)
        maps, placed = rows[:, tokens.prefix :].reshape(-1, *tokens.grid).numpy(), True
        added = found.heads.get(layer)
    else:
        activations, placed = study.activations(photo, selection.model, layer)
        maps, added = activations.numpy(), found.channels[layer]
    fits = added is not None and len(added) == len(maps)
    values = added.numpy() if added is not None and fits else None
    label = short(found.label)
    if found.against is not None:
        label = tell(
            "inside.over", **{"class": label}, other=short(study.catalog.get(selection.model).labels[found.against])
        )
    return View(maps, placed, attention is not None, values, label, found.logit)


def order(seen: View) -> list[int]:
    """The units, first those that speak most for the class; where that is not known, those that differ most."""
    if seen.added is not None:
        return np.argsort(-seen.added, kind="stable").tolist()
    weight = seen.maps.std((1, 2)) if seen.maps[0].size > 1 else np.abs(seen.maps[:, 0, 0])
    return np.argsort(-weight, kind="stable").tolist()


def shown(seen: View) -> list[int]:
    """The units on the sheet: of many, the two ends of the order."""
    every = order(seen)
    return every if len(every) <= FOR + AGAINST else every[:FOR] + every[-AGAINST:]


def unit_of(seen: View, at: At) -> Unit:
    """The unit that is looked at: the one that was chosen, if there is such a one."""
    known = at.number is not None and 0 <= at.number < len(seen.maps)
    return Unit(at.layer, at.number if known and at.number is not None else order(seen)[0], seen.heads)


def sheet(seen: View, at: At, unit: Unit) -> dict[str, Any]:
    """The units as buttons on one scale, each with what it adds to the class."""
    numbers = shown(seen)
    signed = bool(seen.maps.min() < 0)
    limits = render.limits_of(seen.maps[numbers], signed=signed)
    off = {one.number for one in at.off if one.layer == at.layer and one.head == seen.heads}
    notes = {} if seen.added is None else dict(zip(numbers, amounts(seen.added[numbers]), strict=True))
    items = []
    for i in numbers:
        name = tell("inside.head", number=i + 1) if seen.heads else str(i)
        hint = named(Unit(at.layer, i, seen.heads))
        item = thumb(str(i), name, seen.maps[i], limits, signed=signed, smooth=False, hint=hint)
        items.append({**item, "note": tell("inside.off") if i in off else notes.get(i, "")})
    kind = "heads" if seen.heads else "channels"
    label, heading = (
        tell(f"inside.{kind}", layer=at.layer),
        tell(f"inside.{kind}-by", layer=at.layer, **{"class": seen.label}),
    )
    return thumbs(items, str(unit.number), label=label, heading=heading, small=True, of=at.layer)


def named(unit: Unit) -> str:
    """What a person calls a unit; heads are counted from 1, as everywhere on the page."""
    if unit.head:
        return tell("inside.unit-head", layer=unit.layer, number=unit.number + 1)
    return tell("inside.unit", layer=unit.layer, number=unit.number)


def amounts(values: Sequence[float] | np.ndarray) -> list[str]:
    """Signed numbers with as many decimals as the largest needs for two digits.

    >>> amounts([0.394, -0.01, 0.0])
    ['+0.39', '−0.01', '0']
    """
    most = max((abs(float(value)) for value in values), default=0.0)
    decimals = min(max(1 - math.floor(math.log10(most)), 0), 6) if most > 0 else 0
    texts = [f"{float(value):+.{decimals}f}" for value in values]
    return ["0" if not float(text) else text.replace("-", "\u2212") for text in texts]


def onto(study: Study, photo: Image.Image, selection: Selection, seen: View, unit: Unit) -> dict[str, Any]:
    """Where a unit fires on the photo; a sentence for a layer whose output has no places."""
    if not seen.placed:
        return {"empty": tell("inside.placeless", layer=unit.layer)}
    values = seen.maps[unit.number]
    alt = tell("inside.looks" if unit.head else "inside.responds", unit=named(unit), high=f"{values.max():.3g}")
    geometry = study.catalog.get(selection.model).preprocessing.geometry(photo)
    name = f"{selection.model}_{unit.words}.png".replace("/", "-").replace(" · ", "_").replace(" ", "_")
    return heat(values, photo, geometry, signed=bool(seen.maps.min() < 0), smooth=not unit.head, alt=alt, file=name)


def about(study: Study, selection: Selection, seen: View, unit: Unit) -> str:
    """What the unit is, does and adds, in words."""
    number = unit.number + 1 if unit.head else unit.number
    name = tell("inside.head-name" if unit.head else "inside.channel-name", number=number, layer=unit.layer)
    ends = (seen.maps[unit.number].min(), seen.maps[unit.number].max())
    low, high = (f"{end:.3g}".replace("-", "\u2212") for end in ends)
    tokens = study.catalog.get(selection.model).tokens
    if unit.head and tokens and tokens.read:
        said = tell("inside.token-looks", token=tokens.names[tokens.read[0]])
    elif unit.head:
        said = tell("inside.patches-look")
    elif seen.maps.min() < 0:
        said = tell("inside.signed", low=low, high=high)
    else:
        said = tell("inside.bright", high=high)
    if seen.added is None:
        return caption(name, said)
    facts = {"class": seen.label, "score": f"{seen.logit:.2f}".replace("-", "\u2212")}
    said = f"{said} {tell('inside.adds', amount=amounts([seen.added[unit.number]])[0], **facts)}"
    return caption(name, said, tell("inside.linear"))


def switch(study: Study, photo: Image.Image, selection: Selection, at: At, unit: Unit) -> dict[str, Any]:
    """The switch of a unit, and the answers with and without what is off."""
    before = study.predictions(photo, selection.model, 10**6)
    after = study.without(photo, selection.model, at.off) if at.off else None
    turn = "on" if unit in at.off else "off"
    if unit.head:
        label = tell(f"inside.switch-head-{turn}", number=unit.number + 1)
    else:
        label = tell(f"inside.switch-channel-{turn}", number=unit.number)
    return silence(label, [named(one) for one in at.off], before, after, selection.target)


def switched(at: At, unit: Unit, asked: object) -> At:
    """After a click in the list of what is off: the unit toggled, one of the list on again, or all."""
    if asked == "toggle":
        rest = tuple(one for one in at.off if one != unit)
        return at._replace(off=rest if unit in at.off else (*at.off, unit))
    if asked == "all":
        return at._replace(off=())
    if isinstance(asked, str) and asked.isdecimal() and int(asked) < len(at.off):
        return at._replace(off=at.off[: int(asked)] + at.off[int(asked) + 1 :])
    return at


def moved(study: Study, photo: Image.Image, selection: Selection, at: At | None, choices: Sequence[Choice]) -> At:
    """Where a visitor is after these choices: a `layer`, a `unit` `of` one, what to `switch`; an address's `u`, `o`."""
    at = settled(study, selection, at)
    layers = choosable(study.catalog.get(selection.model))
    for choice in choices:
        if "u" in choice or "o" in choice:
            link, _ = parse(choice, {})
            at, _ = linked(study, photo, selection, link.unit, link.off)
        unit = choice.get("unit")
        layer = choice.get("layer" if unit is None else "of")
        if layer in layers:
            number = int(unit) if isinstance(unit, str) and unit.isdecimal() else None
            at = at._replace(layer=layer, number=number)
        if "switch" in choice:
            one = unit_of(view(study, photo, selection, at.layer), at)
            at = switched(at, one, choice["switch"])._replace(number=one.number)
    return at


def draw(study: Study, photo: Image.Image | None, selection: Selection | None, at: At | None) -> tuple:
    """All that depends on the layer and the class: the tree, a unit on the photo, its words and switch, the sheet."""
    if photo is None or selection is None:
        return at, {}, "", {"empty": no_photo()}, "", {}, {}
    at = settled(study, selection, at)
    model = study.catalog.get(selection.model)
    seen = view(study, photo, selection, at.layer)
    unit = unit_of(seen, at)
    return (
        at,
        tree(model, at.layer),
        caption(tell("inside.heading"), tell("inside.attention" if model.attention_layers else "inside.convolutions")),
        onto(study, photo, selection, seen, unit),
        about(study, selection, seen, unit),
        switch(study, photo, selection, at, unit),
        sheet(seen, at, unit),
    )


def build(shared: Shared) -> None:
    """Choose a layer and a unit on the left, see it on the right; what every photo meets first below."""
    study, desk, at = shared.study, shared.inside, gr.State(None)
    with gr.Row(equal_height=False, elem_id="inside-bench"):
        with gr.Column(scale=5, min_width=300):
            made = gr.HTML(apply_default_css=False)
            parts = part("tree", elem_id="inside-tree")
            units = part("thumbs", elem_id="inside-channels", chooses="unit", desk="inside-desk")
        with gr.Column(scale=6, min_width=320, elem_classes="viz-beside"):
            shows = part("heat", elem_id="inside-heat")
            words = gr.HTML(elem_id="inside-words", apply_default_css=False)
            silent = part("silence", elem_id="inside-silence")

    def choose(photo: Image.Image | None, selection: Selection | None, at: At | None, value: Any) -> tuple:
        if photo is not None and selection is not None:
            at = moved(study, photo, selection, at, told(value))
        at, *drawn = draw(study, photo, selection, at)
        return at, *drawn, {**answered(value), "keys": keys(study, selection, at)}

    alone = {**PLUMBING, "trigger_mode": "multiple"}  # the desk sees to it that no two answers meet
    shared.selection.change(None, None, None, js=choosing("", "{}", "inside-desk"), **alone)
    choice = shared.on(desk.input, choose, [at, desk], [at, parts, made, shows, words, silent, units, desk], **alone)
    choice.failure(None, None, None, js=refused("inside-desk"), **PLUMBING)
    kernels.build(shared)
