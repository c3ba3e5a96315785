"""Values of options of shell commands: targets, and parameters of methods."""

from __future__ import annotations

import json
from typing import Any

from vizlib.core.errors import MethodError, TargetError


def parse_target(text: str | None) -> str | dict[str, Any] | None:
    """Return the target that an option names: a class, or weights of classes from a JSON object.

    Args:
        text: The value of the option.

    Raises:
        TargetError: For an object that is not JSON.
    """
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise TargetError(f'the target {text!r} is not JSON ({error}); give weights as {{"church": 1.0}}') from error


def parse_parameters(pairs: list[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` options as keyword arguments.

    A value that is valid JSON is read as JSON (`false`, `3`, `[6, 8]`), any other as text.

    Args:
        pairs: The values of the option.

    Raises:
        MethodError: For a value without a name.
    """
    parameters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise MethodError(f"a parameter is given as NAME=VALUE, not {pair!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        parameters[name] = tuple(value) if isinstance(value, list) else value
    return parameters
