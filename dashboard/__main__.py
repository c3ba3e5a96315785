"""Start the dashboard: `python -m dashboard --port 7860`, which is `vizlib serve` without opening the page."""

from __future__ import annotations

import sys

from vizlib.cli import app


def main() -> None:
    """Read the command line and serve until interrupted."""
    app(["serve", "--no-browser", *sys.argv[1:]], prog_name="vizlib")


if __name__ == "__main__":
    main()
