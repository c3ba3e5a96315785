"""The shell command that starts the dashboard, made from `ServerOptions`: `vizlib serve`, `python -m dashboard`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dashboard.server.options import ServerOptions

SHELL_TYPES = {"models": list[str] | None, "checkpoints": Path | None}  # where a shell option differs from its field
SHELL_DEFAULTS = {"models": None, "browser": True}


def make_command(start: Callable[[ServerOptions], None]) -> Callable[..., None]:
    """Return a typer command with one shell option for each field of `ServerOptions`, which calls `start` with them."""

    def command(**values: Any) -> None:
        models = values.pop("models")
        names = " ".join(models or ()).replace(",", " ").split()
        start(ServerOptions(**values, models=tuple(names)))

    types = {**get_type_hints(ServerOptions), **SHELL_TYPES}
    parameters = []
    for option in fields(ServerOptions):
        flag = f"--{option.name.replace('_', '-')}"
        default = SHELL_DEFAULTS.get(option.name, option.default)
        names = [flag] if default is False else []  # of a switch that is on, typer adds the flag that turns it off
        annotation = Annotated[types[option.name], typer.Option(*names, **option.metadata)]
        parameters.append(
            inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = "Start the dashboard."
    return command


def start_app(options: ServerOptions) -> None:
    """Run the app for the shell command until interrupted."""
    from dashboard.app import run_app  # here, so that the other shell commands do not import gradio

    run_app(options)


serve_command = make_command(start_app)
