"""Start the dashboard: `python -m dashboard --port 7860` is `vizlib serve` without opening a browser."""

from __future__ import annotations

from dashboard.command import main

if __name__ == "__main__":
    main()
