"""What axe finds wrong with a page in the browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SERIOUS = ("serious", "critical")


def find_violations(page: Any, is_known: Callable[[str, str], bool] = lambda rule, selector: False) -> list[str]:
    """Return rule and selector of each serious violation in a page of playwright, except known ones."""
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    found = [
        (rule["id"], " ".join(map(str, node["target"])))
        for rule in violations
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]
    return [f"{rule}: {selector}" for rule, selector in found if not is_known(rule, selector)]
