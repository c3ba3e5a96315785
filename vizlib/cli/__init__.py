"""The command line: `vizlib explain PHOTO`, `compare`, `predict`, `units`, `layers`, `serve` and more."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from vizlib.cli.docs import docs_command
from vizlib.cli.explain import compare_command, estimate_command, explain_command, predict_command
from vizlib.cli.listings import kernels_command, layers_command, methods_command, models_command
from vizlib.cli.prompts import check_command, clip_command
from vizlib.cli.quality import benchmark_command, metrics_command, trust_command
from vizlib.cli.serve import serve_command
from vizlib.cli.units import gradient_command, receptive_field_command, units_command
from vizlib.core.errors import VizlibError

COMMANDS: dict[str, Callable[..., None]] = {
    "explain": explain_command,
    "compare": compare_command,
    "estimate": estimate_command,
    "trust": trust_command,
    "benchmark": benchmark_command,
    "predict": predict_command,
    "units": units_command,
    "receptive-field": receptive_field_command,
    "gradient": gradient_command,
    "clip": clip_command,
    "check": check_command,
    "models": models_command,
    "layers": layers_command,
    "methods": methods_command,
    "metrics": metrics_command,
    "kernels": kernels_command,
    "serve": serve_command,
    "docs": docs_command,
}


class _ErrorReportingGroup(TyperGroup):
    """Print a `VizlibError` as one line and exit with code 2, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        warnings.filterwarnings("ignore", module="PIL")  # its remarks on damaged files, beside the one sentence
        try:
            return super().invoke(ctx)
        except VizlibError as error:
            typer.echo(f"vizlib: {error}", err=True)
            sys.exit(2)


app: typer.Typer = typer.Typer(
    cls=_ErrorReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Explain the decisions of vision models.",
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
