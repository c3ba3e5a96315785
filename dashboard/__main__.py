"""Start the dashboard: `python -m dashboard --port 7860` is `vizlib serve` without opening a browser."""

from __future__ import annotations

import sys

import typer

from dashboard.command import serve_command
from vizlib import VizlibError

ERROR_EXIT_CODE = 2


def main() -> None:
    """Read the command line of `python -m dashboard` and serve; a VizlibError is printed as one line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve_command)
    try:
        app(["--no-browser", *sys.argv[1:]], prog_name="python -m dashboard")
    except VizlibError as error:
        typer.echo(f"vizlib: {error}", err=True)
        sys.exit(ERROR_EXIT_CODE)


if __name__ == "__main__":
    main()
