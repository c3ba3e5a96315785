"""The same from a shell: `vizlib explain PHOTO`, `compare`, `predict`, `units`, `field`, `layers`, `serve` and more."""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup

from vizlib.cli.explain import compare, estimate, explain, predict
from vizlib.cli.listings import kernels, layers, methods, models
from vizlib.cli.serve import serve
from vizlib.cli.units import field, units
from vizlib.core.errors import VizlibError

COMMANDS = (explain, compare, estimate, predict, units, field, models, layers, methods, kernels, serve)


class _PlainErrors(TyperGroup):
    """A person's mistake is one sentence and exit code 2, never a traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except VizlibError as error:
            typer.echo(f"vizlib: {error}", err=True)
            sys.exit(2)


app = typer.Typer(
    cls=_PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See why a vision model decided what it decided.",
)
for command in COMMANDS:
    app.command()(command)
