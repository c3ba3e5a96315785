"""The shell command `vizlib docs`, which serves the documentation to a browser of this machine."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from vizlib.core.documentation import CHECKOUT, find_docs_folder
from vizlib.core.errors import VizlibError

HOST = "127.0.0.1"
Build = Annotated[bool, typer.Option("--build", help="Build it again, from a checkout with the extra `docs`.")]
Browser = Annotated[bool, typer.Option(help="Open a browser.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")]


class _QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a line for each request."""

    def log_message(self, *args: Any) -> None:
        """Write nothing."""


def docs_command(build: Build = False, browser: Browser = True, port: Port = 8000) -> None:
    """Show the documentation, without a network; in a checkout it is built first if it was not."""
    found = None if build else find_docs_folder()
    folder = build_documentation() if found is None else found
    with serve_documentation(folder, port) as server:
        address = f"http://{HOST}:{server.server_port}"
        typer.echo(f"The documentation is at {address}; Ctrl-C ends.")
        if browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("")


def serve_documentation(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the files in a folder, which listens on this machine only.

    Raises:
        VizlibError: For a port that is in use.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_QuietHandler, directory=str(folder)))
    except OSError as error:
        raise VizlibError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error


def build_documentation() -> Path:
    """Build the documentation in the checkout and return its folder.

    Raises:
        VizlibError: Outside a checkout, without mkdocs, or if the build fails.
    """
    if not (CHECKOUT / "mkdocs.yml").is_file():
        raise VizlibError("this installation has no documentation; run `vizlib docs` in a checkout of the project")
    if find_spec("mkdocs") is None:
        raise VizlibError('building the documentation needs the extra `docs`: pip install -e ".[docs]"')
    typer.echo("Building the documentation, tutorials and gallery included: about two minutes.")
    if subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"], cwd=CHECKOUT).returncode:
        raise VizlibError("the documentation could not be built; the reason is printed above")
    folder = find_docs_folder()
    assert folder is not None
    return folder
