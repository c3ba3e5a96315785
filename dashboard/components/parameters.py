"""The parameters of a method as menus; changing one emits the choice `parameters` with all menus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboard.i18n.translate import translate, translate_parameter_help
from vizlib import Model
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import Parameter


def build_parameter_menus(
    model: Model, method: str, changed: Mapping[str, object] | None = None, *, in_url: bool = False
) -> dict[str, Any]:
    """Return the value of the parameter menus: one for each parameter of a method with several choices for a model.

    Args:
        model: The model, on which the choices may depend.
        method: The name of the method.
        changed: The parameters that differ from their defaults, by name.
        in_url: Whether the browser writes the method and the changed parameters into the page's address.
    """
    rows = []
    for name, parameter in METHODS[method].parameters.items():
        values = _list_values(parameter, model)
        if len(values) < 2:
            continue
        chosen = (changed or {}).get(name, values[0])
        names = [
            "automatic" if value is None else str(value).replace("True", "yes").replace("False", "no")
            for value in values
        ]
        rows.append(
            {
                "name": name,
                "help": translate_parameter_help(METHODS[method], name),
                "choices": [{"name": text, "text": format_parameter_value(text)} for text in names],
                "chosen": values.index(chosen) if chosen in values else 0,
            }
        )
    return {"method": method, "parameters": rows, "inUrl": in_url}


def _list_values(parameter: Parameter, model: Model) -> list[Any]:
    """Return the values of a menu, the default first."""
    return list(dict.fromkeys([parameter.default_for(model), *parameter.list_choices(model)]))


def format_parameter_value(value: str) -> str:
    """Return a value as the menu of a parameter shows it, translated; the address has its English name."""
    return translate(f"parameter.{value}") if value in ("automatic", "yes", "no") else value


def apply_parameter_settings(model: Model, method: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameter menus with the named values selected; unknown parameters and values are ignored."""
    value = build_parameter_menus(model, method)
    for row in value["parameters"]:
        names = [choice["name"] for choice in row["choices"]]
        if settings.get(row["name"]) in names:
            row["chosen"] = names.index(settings[row["name"]])
    return value


def get_changed_parameters(menus: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the name of the selected value of each parameter that differs from its default in the menus."""
    rows = [row for row in (menus or {}).get("parameters", ()) if row["chosen"]]
    return {row["name"]: row["choices"][row["chosen"]]["name"] for row in rows}


def parse_parameter_menus(value: Any, model: Model, method: str) -> dict[str, object]:
    """Return the values of the parameters that differ from their defaults in the page's menus.

    Menus of another method and invalid entries, which a forged request may hold, are ignored.
    """
    if not isinstance(value, Mapping) or value.get("method") != method:
        return {}
    parameters: dict[str, object] = {}
    for row in value.get("parameters", ()):
        parameter = METHODS[method].parameters.get(row.get("name"))
        if parameter is None:
            continue
        values = _list_values(parameter, model)
        chosen = row.get("chosen")
        if isinstance(chosen, int) and 0 < chosen < len(values):
            parameters[row["name"]] = values[chosen]
    return parameters
