"""The state of the Inside tab: selected layer and unit, ablated units, and their form in the page's address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from dashboard.components.event_queue import Choice
from dashboard.components.tree import list_selectable_layers
from dashboard.services.analysis_service import AnalysisService, Unit
from dashboard.state.page_address import MAX_VALUE_LENGTH, parse_address
from dashboard.state.selection import Selection
from dashboard.tabs.layer_view import LayerView, compute_layer_view, rank_units

WHOLE_CHANNEL = "all"
MAX_PLACE_LENGTH = 12


class InspectorState(NamedTuple):
    """What a visitor selected in the Inside tab.

    Attributes:
        model: Name of the model.
        layer: Name of the selected layer.
        unit_number: Number of the selected unit, from 0; `None` for the first of the list.
        ablated: Units that are switched off.
        place: Row and column of the position whose gradient is shown, `WHOLE_CHANNEL` for that of all positions
            together, or `None` for no gradient.
    """

    model: str
    layer: str
    unit_number: int | None
    ablated: tuple[Unit, ...]
    place: tuple[int, int] | str | None = None


def normalise_inspector_state(
    service: AnalysisService, selection: Selection, state: InspectorState | None
) -> InspectorState:
    """Return the state, with the layer that Grad-CAM reads where it has no layer of the selected model."""
    model = service.catalog.get(selection.model)
    names = list_selectable_layers(model)
    if state is None or state.model != selection.model:
        return InspectorState(selection.model, model.cam_layer or names[-1], None, ())
    return state if state.layer in names else state._replace(layer=model.cam_layer or names[-1], unit_number=None)


def select_unit(view: LayerView, state: InspectorState) -> Unit:
    """Return the unit that the inspector's state selects, or the first of the ranking where there is no such unit."""
    number = state.unit_number
    if number is None or not 0 <= number < len(view.maps):
        number = rank_units(view)[0]
    return Unit(state.layer, number, view.is_attention)


def toggle_ablation(state: InspectorState, unit: Unit, action: object) -> InspectorState:
    """Return the inspector's state after a click in the ablation panel.

    Args:
        state: State before the click.
        unit: The selected unit.
        action: `"toggle"` for the selected unit, an index of the list of ablated units as text to restore that one,
            `"all"` to restore all; any other value changes nothing.
    """
    if action == "toggle":
        rest = tuple(other for other in state.ablated if other != unit)
        return state._replace(ablated=rest if unit in state.ablated else (*state.ablated, unit))
    if action == "all":
        return state._replace(ablated=())
    if isinstance(action, str) and action.isdecimal() and int(action) < len(state.ablated):
        return state._replace(ablated=state.ablated[: int(action)] + state.ablated[int(action) + 1 :])
    return state


def parse_inspector_link(
    service: AnalysisService, photo: Image.Image, selection: Selection, unit: str | None, off: str | None
) -> tuple[InspectorState, list[str]]:
    """Return the inspector's state in the address keys `u` and `o`, and which of the two keys are not valid."""
    state, invalid = normalise_inspector_state(service, selection, None), []
    layers = list_selectable_layers(service.catalog.get(selection.model))

    def parse_unit(text: str) -> Unit | None:
        layer, _, number = text.partition(":")
        view = compute_layer_view(service, photo, selection, layer) if layer in layers else None
        return Unit(layer, int(number or 0), view.is_attention) if view and int(number or 0) < len(view.maps) else None

    if unit:
        name, _, place = unit.partition("@")
        linked = parse_unit(name)
        if linked is None:
            invalid.append("u")
        else:
            number = linked.number if ":" in name else None
            state = state._replace(layer=linked.layer, unit_number=number, place=parse_place(place))
    if off:
        units = tuple(parsed for parsed in map(parse_unit, off.split(";")) if parsed is not None)
        if len(units) < off.count(";") + 1:
            invalid.append("o")
        else:
            state = state._replace(ablated=units)
    return state, invalid


def format_inspector_link(
    service: AnalysisService, selection: Selection | None, state: InspectorState | None
) -> dict[str, str | None]:
    """Return the address keys of the inspector's state; `None` for keys with the default value."""
    if state is None or selection is None:
        return {"u": None, "o": None}
    number = "" if state.unit_number is None else f":{state.unit_number}"
    off = ";".join(f"{unit.layer}:{unit.number}" for unit in state.ablated)
    place = "" if state.place is None else f"@{format_place(state.place)}"
    is_default = not number and not place and state.layer == normalise_inspector_state(service, selection, None).layer
    return {
        "u": None if is_default else state.layer + number + place,
        "o": off if 0 < len(off) <= MAX_VALUE_LENGTH else None,
    }


def apply_inspector_choices(
    service: AnalysisService,
    photo: Image.Image,
    selection: Selection,
    state: InspectorState | None,
    choices: Sequence[Choice],
) -> InspectorState:
    """Return the inspector's state after a sequence of choices.

    A choice selects a `layer`, or a `unit` `of` a layer, or is an action of the ablation panel (`switch`), or shows
    what would `raise` the unit, or has the address keys `u` and `o`.
    """
    state = normalise_inspector_state(service, selection, state)
    layers = list_selectable_layers(service.catalog.get(selection.model))
    for choice in choices:
        if "u" in choice or "o" in choice:
            link, _ = parse_address(choice, {})
            state, _ = parse_inspector_link(service, photo, selection, link.unit, link.ablated)
        unit = choice.get("unit")
        layer = choice.get("layer" if unit is None else "of")
        if layer in layers:
            number = int(unit) if isinstance(unit, str) and unit.isdecimal() else None
            place = state.place if layer == state.layer else None
            state = state._replace(layer=layer, unit_number=number, place=place)
        if "raise" in choice:
            state = state._replace(place=parse_place(choice["raise"]))
        if "switch" in choice:
            selected = select_unit(compute_layer_view(service, photo, selection, state.layer), state)
            state = toggle_ablation(state, selected, choice["switch"])._replace(unit_number=selected.number)
    return state


def format_place(place: tuple[int, int] | str) -> str:
    """Return the place whose gradient the Inside tab shows as `parse_place` reads it."""
    return place if isinstance(place, str) else f"{place[0]},{place[1]}"


def parse_place(text: object) -> tuple[int, int] | str | None:
    """Return the place whose gradient the Inside tab shows.

    Args:
        text: "row,column", `WHOLE_CHANNEL`, or anything else for none.
    """
    if not isinstance(text, str):
        return None
    row, _, column = text.partition(",")
    if row.isdecimal() and column.isdecimal() and len(text) < MAX_PLACE_LENGTH:
        return int(row), int(column)
    return WHOLE_CHANNEL if text == WHOLE_CHANNEL else None
