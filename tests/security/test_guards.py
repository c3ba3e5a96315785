"""The guards match the code: each occurs there, each of their tests exists, and the README lists them.

That a test fails without its guard is checked by running `mutate.py` by hand, as it takes an hour.
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


def test_every_guard_occurs_once_in_the_code_and_names_existing_tests(mutate):
    assert len({guard["risk"] for guard in mutate.read_guards()}) == len(mutate.read_guards()) > 50
    for guard in mutate.read_guards():
        assert guard["edit"], guard["risk"]
        assert guard["tests"], guard["risk"]
        for edit in guard["edit"]:
            assert mutate.apply_edit(mutate.ROOT, edit) != (mutate.ROOT / edit["file"]).read_text(encoding="utf-8")
        for test in guard["tests"]:
            file, _, name = test.partition("::")
            text = (mutate.ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"\ndef {name.partition('[')[0]}(" in text, test


def test_readme_table_matches_the_guards_and_each_test_failed_once(mutate):
    readme = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    for guard in mutate.read_guards():
        start = mutate.format_row(guard, [""]).removesuffix("|").rstrip()
        rows = [line for line in readme if line.startswith(start)]
        assert len(rows) == 1, f"run tests/security/mutate.py again for: {guard['risk']}"
        results = re.findall(r"(\d+) of (\d+) failed", rows[0].removeprefix(start))
        assert len(results) == len(guard["tests"])
        assert all(int(failed) > 0 for failed, _ in results), rows[0]


def test_missing_guard_is_reported(mutate):
    with pytest.raises(ValueError, match="contains 0 times, not once"):
        mutate.apply_edit(mutate.ROOT, {"file": "dashboard/app.py", "old": "api_open=None", "new": ""})


FAILING_TESTS = """
import httpx, pytest

@pytest.mark.parametrize("error", [AssertionError("wrong"), httpx.ReadError("reset"), None])
def test_page(error):
    if error:
        raise error
"""


@pytest.mark.slow
def test_lost_connection_is_no_failure_of_a_test(mutate, tmp_path, capsys):
    (tmp_path / "copy/tests").mkdir(parents=True)
    (tmp_path / "copy/tests/test_page.py").write_text(FAILING_TESTS, encoding="utf-8")
    assert mutate.count_failures(tmp_path / "copy", ["test_page.py::test_page"]) == [(1, 3)]
    assert "test_page[error1]: httpx.ReadError: reset" in capsys.readouterr().err
