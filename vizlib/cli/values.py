"""Values of options of shell commands: parameters of methods."""

from __future__ import annotations

import json
from typing import Any

from vizlib.core.errors import MethodError


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
