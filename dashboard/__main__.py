"""Start the dashboard: `python -m dashboard --port 7860`."""

from __future__ import annotations

import argparse

from dashboard.app import serve
from vizlib import VizlibError


def main() -> None:
    """Read the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m dashboard", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=7860, help="the port to listen on; 0 for any free one")
    parser.add_argument("--browser", action="store_true", help="open the page")
    parser.add_argument("--checkpoints", metavar="FOLDER", help="a folder of weight files to offer besides")
    chosen = parser.parse_args()
    try:
        serve(chosen.host, chosen.port, inbrowser=chosen.browser, checkpoints=chosen.checkpoints)
    except VizlibError as error:  # a person's mistake: one sentence, no traceback
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
