"""The shell command that starts the dashboard: `vizlib serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from vizlib.cli.options import Checkpoints


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 for any free one.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    auth: Annotated[
        str | None, typer.Option(metavar="USER:PASSWORD", help="Who may enter; @FILE for one user:password a line.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option(metavar="NAME...", help="Offer only these, separated by blanks or commas.")
    ] = None,
    listed_only: Annotated[
        bool, typer.Option("--listed-only", help="Take no name that is typed; so it is wherever others reach the page.")
    ] = False,
    allow_any_model: Annotated[
        bool, typer.Option("--allow-any-model", help="Take any hf-hub: repository or path too; not in public.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Offer only what is on this machine.")] = False,
    resident: Annotated[int, typer.Option(help="How many models stay in memory.")] = 2,
    idle_minutes: Annotated[float, typer.Option(help="Until a model that nobody asks leaves the memory.")] = 30,
    max_queue: Annotated[int, typer.Option(help="How many may wait before others are turned away.")] = 64,
    workers: Annotated[int, typer.Option(help="How many questions to models are answered at once.")] = 2,
    delete_after: Annotated[
        int, typer.Option(metavar="SECONDS", help="Delete uploads that are as old, before they are twice as old.")
    ] = 3600,
    mcp: Annotated[bool, typer.Option("--mcp", help="Offer the endpoints as tools to language models.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Print a line of JSON for each run of a model.")] = False,
    checkpoints: Checkpoints = None,
) -> None:
    """Start the dashboard."""
    given = locals()  # every option is a setting of the same name
    from dashboard.app import serve as start  # here, so that every other command starts without gradio
    from dashboard.server.server import ServerOptions

    given["models"] = tuple(" ".join(models or []).replace(",", " ").split())
    start(ServerOptions(**given))
