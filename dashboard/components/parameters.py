"""A method's knobs as menus; turning one is a choice of all `knobs` as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboard.i18n.translate import describe_parameter, translate
from vizlib import Model
from vizlib.attribution.methods.registry import METHODS


def build_parameter_menus(
    model: Model, method: str, changed: Mapping[str, object] | None = None, *, in_url: bool = False
) -> dict[str, Any]:
    """What the registry offers for this method on this model, with the turned ones in their place.

    With `placed` the page's address names the method and the turned knobs.
    """
    rows = []
    for name, knob in METHODS[method].knobs.items():
        values = list(dict.fromkeys([knob.default, *knob.list_choices(model)]))
        if len(values) < 2:
            continue
        chosen = (changed or {}).get(name, knob.default)
        names = [
            "automatic" if value is None else str(value).replace("True", "yes").replace("False", "no")
            for value in values
        ]
        rows.append(
            {
                "name": name,
                "help": describe_parameter(METHODS[method], name),
                "choices": [{"name": text, "said": format_value(text)} for text in names],
                "chosen": values.index(chosen) if chosen in values else 0,
            }
        )
    return {"method": method, "knobs": rows, "placed": in_url}


def format_value(value: str) -> str:
    """A value as the menu shows it; the address calls it by its name in every language."""
    return translate(f"parameter.{value}") if value in ("automatic", "yes", "no") else value


def apply_settings(model: Model, method: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The menus as they stand when each knob shows the value of this name; an unknown knob or value changes nothing."""
    value = build_parameter_menus(model, method)
    for row in value["knobs"]:
        names = [choice["name"] for choice in row["choices"]]
        if settings.get(row["name"]) in names:
            row["chosen"] = names.index(settings[row["name"]])
    return value


def get_changed_names(menus: Mapping[str, Any] | None) -> dict[str, str]:
    """What the menus show, where that is not the default, by name of the knob."""
    rows = [row for row in (menus or {}).get("knobs", ()) if row["chosen"]]
    return {row["name"]: row["choices"][row["chosen"]]["name"] for row in rows}


def parse_parameters(value: Any, model: Model, method: str) -> dict[str, object]:
    """The knobs that a page's menus hold away from their defaults; none of another method's, or of nonsense."""
    if not isinstance(value, Mapping) or value.get("method") != method:
        return {}
    found: dict[str, object] = {}
    for row in value.get("knobs", ()):
        knob = METHODS[method].knobs.get(row.get("name"))
        if knob is None:
            continue
        values = list(dict.fromkeys([knob.default, *knob.list_choices(model)]))
        chosen = row.get("chosen")
        if isinstance(chosen, int) and 0 < chosen < len(values):
            found[row["name"]] = values[chosen]
    return found
