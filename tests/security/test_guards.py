"""The table of `mutate.py` is true of the code: each guard stands there, each test exists, and the README has both.

That a test fails without its guard is measured by `mutate.py` itself, by hand, as it takes an hour.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def mutate():
    pytest.importorskip("tomllib")
    sys.path.insert(0, str(HERE))
    try:
        import mutate
    finally:
        sys.path.remove(str(HERE))
    return mutate


def test_every_guard_stands_in_the_code_once_and_is_missed_by_tests_that_exist(mutate):
    assert len({guard["risk"] for guard in mutate.guards()}) == len(mutate.guards()) > 50
    for guard in mutate.guards():
        assert guard["edit"], guard["risk"]
        assert guard["tests"], guard["risk"]
        for edit in guard["edit"]:
            assert mutate.changed(mutate.ROOT, edit) != (mutate.ROOT / edit["file"]).read_text(encoding="utf-8")
        for test in guard["tests"]:
            file, _, name = test.partition("::")
            text = (mutate.ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"\ndef {name.partition('[')[0]}(" in text, test


def test_the_readme_has_the_rows_of_the_table_and_each_was_seen_failing(mutate):
    readme = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    for guard in mutate.guards():
        start = mutate.told(guard, [""]).removesuffix("|").rstrip()
        found = [line for line in readme if line.startswith(start)]
        assert len(found) == 1, f"run tests/security/mutate.py again for: {guard['risk']}"
        seen = re.findall(r"(\d+) of (\d+) failed", found[0].removeprefix(start))
        assert len(seen) == len(guard["tests"])
        assert all(int(failed) > 0 for failed, _ in seen), found[0]


def test_a_guard_that_is_gone_is_said(mutate):
    with pytest.raises(ValueError, match="holds 0 times, not once"):
        mutate.changed(mutate.ROOT, {"file": "dashboard/app.py", "old": "api_open=None", "new": ""})
