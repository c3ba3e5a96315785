"""Where a visitor is inside a network: a layer, a unit of it, what is switched off; and how an address says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dashboard.components.event_queue import Choice
from dashboard.components.tree import list_selectable_layers
from dashboard.i18n.translate import translate
from dashboard.services.analysis_service import AnalysisService, Unit
from dashboard.state.selection import MAX_VALUE_LENGTH, Selection, parse_address
from vizlib.core.text import shorten_label


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


def settled(service: AnalysisService, selection: Selection, at: At | None) -> At:
    """Where a visitor is on this model: as before, or at the layer class activation maps are drawn from."""
    model = service.catalog.get(selection.model)
    names = list_selectable_layers(model)
    if at is None or at.model != selection.model:
        return At(selection.model, model.cam_layer or names[-1], None, ())
    return at if at.layer in names else at._replace(layer=model.cam_layer or names[-1], number=None)


def view(service: AnalysisService, photo: Image.Image, selection: Selection, layer: str) -> View:
    """A layer's channels, or an attention layer's heads."""
    found = service.get_contributions(selection.request(photo), layer)
    attention = service.get_attention(photo, selection.model).get(layer)
    tokens = service.catalog.get(selection.model).tokens
    if attention is not None and tokens is not None:
        rows = attention[:, tokens.classifier_tokens[0]] if tokens.classifier_tokens else attention.mean(1)
        maps, placed = rows[:, tokens.num_prefix_tokens :].reshape(-1, *tokens.grid).numpy(), True
        added = found.heads.get(layer)
    else:
        activations, placed = service.get_activations(photo, selection.model, layer)
        maps, added = activations.numpy(), found.channels[layer]
    fits = added is not None and len(added) == len(maps)
    values = added.numpy() if added is not None and fits else None
    label = shorten_label(found.label)
    if found.against is not None:
        label = translate(
            "inside.over",
            **{"class": label},
            other=shorten_label(service.catalog.get(selection.model).labels[found.against]),
        )
    return View(maps, placed, attention is not None, values, label, found.logit)


def order(seen: View) -> list[int]:
    """The units, first those that speak most for the class; where that is not known, those that differ most."""
    if seen.added is not None:
        return np.argsort(-seen.added, kind="stable").tolist()
    weight = seen.maps.std((1, 2)) if seen.maps[0].size > 1 else np.abs(seen.maps[:, 0, 0])
    return np.argsort(-weight, kind="stable").tolist()


def unit_of(seen: View, at: At) -> Unit:
    """The unit that is looked at: the one that was chosen, if there is such a one."""
    known = at.number is not None and 0 <= at.number < len(seen.maps)
    return Unit(at.layer, at.number if known and at.number is not None else order(seen)[0], seen.heads)


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


def linked(
    service: AnalysisService, photo: Image.Image, selection: Selection, unit: str | None, off: str | None
) -> tuple[At, list[str]]:
    """Where an address sends a visitor by its keys `u` and `o`, and which of the two ask for what is not there."""
    at, unknown, layers = (
        settled(service, selection, None),
        [],
        list_selectable_layers(service.catalog.get(selection.model)),
    )

    def found(text: str) -> Unit | None:
        layer, _, number = text.partition(":")
        seen = view(service, photo, selection, layer) if layer in layers else None
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


def keys(service: AnalysisService, selection: Selection | None, at: At | None) -> dict[str, str | None]:
    """What an address calls the place where a visitor is; nothing where everybody begins."""
    if at is None or selection is None:
        return {"u": None, "o": None}
    number = "" if at.number is None else f":{at.number}"
    off = ";".join(f"{one.layer}:{one.number}" for one in at.off)
    first = not number and at.layer == settled(service, selection, None).layer
    return {"u": None if first else at.layer + number, "o": off if 0 < len(off) <= MAX_VALUE_LENGTH else None}


def moved(
    service: AnalysisService, photo: Image.Image, selection: Selection, at: At | None, choices: Sequence[Choice]
) -> At:
    """Where a visitor is after these choices: a `layer`, a `unit` `of` one, what to `switch`; an address's `u`, `o`."""
    at = settled(service, selection, at)
    layers = list_selectable_layers(service.catalog.get(selection.model))
    for choice in choices:
        if "u" in choice or "o" in choice:
            link, _ = parse_address(choice, {})
            at, _ = linked(service, photo, selection, link.unit, link.off)
        unit = choice.get("unit")
        layer = choice.get("layer" if unit is None else "of")
        if layer in layers:
            number = int(unit) if isinstance(unit, str) and unit.isdecimal() else None
            at = at._replace(layer=layer, number=number)
        if "switch" in choice:
            one = unit_of(view(service, photo, selection, at.layer), at)
            at = switched(at, one, choice["switch"])._replace(number=one.number)
    return at
