"""Files with the ranking of methods, and those that are distributed with the bundled networks."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.metrics import METRICS, Benchmark, BenchmarkRow
from vizlib.metrics.ranking import RANKINGS_FOLDER, group_columns, list_ranked_methods, read_ranking, write_ranking

ROW = BenchmarkRow("a.png", "saliency", "deletion", 0.25, 0.3, 0.8, 0.28, math.nan, 0.01)
SETTINGS = {"methods": ["saliency", "grad-cam", "hires-cam"], "metrics": ["deletion"]}


def make_table() -> Benchmark:
    others = [replace(ROW, method=name, value=value) for name, value in (("grad-cam", 0.2), ("hires-cam", 0.2 + 1e-9))]
    return Benchmark("a network", (ROW, *others), SETTINGS, {})


def test_a_ranking_is_read_as_it_was_written(tmp_path):
    rows = list_ranked_methods(make_table(), "two photos, with a comma", {"deletion": "steps=4"})
    write_ranking(tmp_path / "ranking.csv", rows)
    for found, expected in zip(read_ranking(tmp_path / "ranking.csv"), rows, strict=True):
        assert (found.data, found.parameters) == (expected.data, "steps=4")
        for name, value in asdict(expected.summary).items():
            found_value = getattr(found.summary, name)
            assert found_value == (pytest.approx(value, rel=1e-3, nan_ok=True) if isinstance(value, float) else value)
    assert read_ranking(tmp_path / "missing.csv") == []


def test_means_that_are_equal_up_to_rounding_have_equal_ranks():
    assert [one.rank for one in make_table().summaries] == [3, 1, 1]


@pytest.mark.parametrize(
    "name", [entry.name for entry in vizlib.list_models() if entry.bundled and not entry.reads_prompts]
)
def test_every_bundled_network_has_a_ranking_of_all_its_methods(name):
    rows = read_ranking(RANKINGS_FOLDER / f"{name}.csv")
    fitting = set(vizlib.list_methods(vizlib.load(name)))
    columns = group_columns(rows)
    curves = {metric: set(cells) for (metric, _, _), cells in columns.items() if metric in ("deletion", "insertion")}
    assert curves == {"deletion": fitting, "insertion": fitting}
    for (metric, _, _), cells in columns.items():
        assert metric in METRICS
        assert cells.keys() <= METHODS.keys()
        for one in cells.values():
            assert one.low <= one.mean <= one.high
            assert one.photos >= 2  # a constant map has no value
        assert min(one.rank for one in cells.values()) == 1
