"""`vizlib.benchmark`: its values, means, files, and that an interrupted one continues."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizlib
from vizlib import VizlibError
from vizlib.metrics import measure
from vizlib.metrics.benchmark_table import bootstrap_interval
from vizlib.metrics.benchmarking import RESULTS_FILE

METHODS = ("saliency", "input-x-gradient", "grad-cam")
METRICS = ("deletion", "parameter-randomisation", "max-sensitivity", "energy-pointing-game")
PARAMETERS = {"deletion": {"steps": 4}, "max-sensitivity": {"samples": 3}, "grad-cam": {"layer": "convolution"}}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, image):
        return self.head(self.convolution(image).relu().mean((2, 3)))


@pytest.fixture
def model():
    preprocessing = {"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash"}
    return vizlib.wrap(Network().eval(), preprocessing=preprocessing)


@pytest.fixture
def photos(tmp_path):
    paths = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


BOXES = {f"{number}.png": [(2 + number, 3, 12, 15)] for number in range(4)}


def run(model, photos, **options):
    settings = {
        "methods": METHODS,
        "metrics": METRICS,
        "boxes": BOXES,
        "parameters": PARAMETERS,
        "precision": "float32",
    }
    return vizlib.benchmark(model, photos, **{**settings, **options})


def drop_times(table):
    """Return the rows as text, as NaN is not equal to itself, without their times."""
    return [repr(replace(row, seconds=0.0)) for row in table.rows]


def test_values_are_those_of_measure_and_summaries_their_means(model, photos):
    table = run(model, photos[:2])
    assert len(table.rows) == 2 * len(METHODS) * len(METRICS)
    for row in table.rows:
        attribution = vizlib.explain(model, row.photo, row.method, **PARAMETERS.get(row.method, {}))
        options: dict[str, Any] = dict(PARAMETERS.get(row.metric, {}))
        if row.metric == "energy-pointing-game":
            options["boxes"] = BOXES[os.path.basename(row.photo)]
        found = measure(model, attribution, row.metric, random_maps=5, precision="float32", **options)
        assert row.value == pytest.approx(found.value, abs=1e-5), row
        if found.random_values:
            assert row.random == pytest.approx(np.mean(found.random_values), abs=1e-5), row
            assert row.better_than_random == pytest.approx(found.better_than_random, abs=1e-5), row
        else:
            assert row.random == pytest.approx(found.references["shuffled"]), row
        for name, value in (("centred-gaussian", row.centred_gaussian), ("edges", row.edges)):
            assert value == pytest.approx(found.references.get(name, math.nan), abs=1e-5, nan_ok=True), row
        assert row.seconds > 0
    for summary in table.summaries:
        values = [row.value for row in table.rows if (row.method, row.metric) == (summary.method, summary.metric)]
        assert summary.mean == pytest.approx(np.mean(values))
        assert min(values) - 1e-9 <= summary.low <= summary.mean <= summary.high <= max(values) + 1e-9
        assert summary.photos == 2
    for metric in METRICS:
        ranked = sorted((one for one in table.summaries if one.metric == metric), key=lambda one: one.rank)
        means = [one.mean for one in ranked]
        assert means == sorted(means, reverse=metric == "energy-pointing-game")


def test_each_photo_is_explained_for_its_label(model, photos):
    labels = {"0.png": 3, "1.png": 1}
    table = run(model, photos[:2], labels=labels, methods=["saliency"], metrics=["sparseness"], parameters={})
    for row in table.rows:
        attribution = vizlib.explain(model, row.photo, "saliency", labels[os.path.basename(row.photo)])
        assert row.value == pytest.approx(measure(model, attribution, "sparseness").value)


def test_the_bootstrap_interval_is_about_that_of_the_normal_approximation():
    values = np.random.default_rng(3).normal(5, 2, 200)
    low, high = bootstrap_interval(values)
    half_width = 1.96 * values.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half_width, values.mean() + half_width), abs=0.08)
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([])))


def test_an_interrupted_benchmark_continues_to_the_same_table(model, photos, tmp_path, monkeypatch):
    whole = run(model, photos)
    folder, results = tmp_path / "results", tmp_path / "results" / RESULTS_FILE
    run(model, photos[:1], folder=folder)
    complete = results.read_bytes()
    run(model, photos[:2], folder=folder)
    for cut in (len(complete), len(complete) + 1, len(complete) + 150, len(results.read_bytes()) - 1):
        results.write_bytes(results.read_bytes()[:cut] if cut > len(complete) else complete)
        table = run(model, photos, folder=folder)
        assert drop_times(table) == drop_times(whole)
        lines = results.read_text().splitlines()
        assert [json.loads(line)["photo"] for line in lines[1:]] == photos
    calls = []
    monkeypatch.setattr(type(model), "forward", lambda *args, **options: calls.append(1))
    assert drop_times(run(model, photos, folder=folder)) == drop_times(whole)
    assert not calls  # nothing is computed twice


SCRIPT = """
import sys, vizlib
sys.path.insert(0, {folder!r})
import os, signal
from vizlib.metrics import benchmarking
from test_benchmark import Network, run
original = benchmarking._ResultStore.add
def add(self, *args):
    original(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)
benchmarking._ResultStore.add = add
preprocessing = {{"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash"}}
run(vizlib.wrap(Network().eval(), preprocessing=preprocessing), sys.argv[2:], folder=sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_benchmark_continues_to_the_same_table(model, photos, tmp_path):
    folder = tmp_path / "results"
    script = SCRIPT.format(folder=os.path.dirname(__file__))
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), *photos]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert (folder / RESULTS_FILE).read_bytes().count(b"\n") == 2  # the settings and one photo
    assert drop_times(run(model, photos, folder=folder)) == drop_times(run(model, photos))


MEMORY_SCRIPT = """
import sys, numpy as np
sys.path.insert(0, {folder!r})
from PIL import Image
import vizlib
from test_benchmark import Network
paths = []
for number in range(int(sys.argv[2])):
    paths.append(f"{{sys.argv[1]}}/{{number}}.png")
    Image.fromarray(np.full((1600, 1600, 3), number, np.uint8)).save(paths[-1])
preprocessing = {{"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash"}}
model = vizlib.wrap(Network().eval(), preprocessing=preprocessing)
table = vizlib.benchmark(model, paths, methods=["saliency"], metrics=["sparseness"], folder=sys.argv[1])
assert len(table.rows) == len(paths)
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmRSS")]
print(int(line.split()[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    script, used = MEMORY_SCRIPT.format(folder=os.path.dirname(__file__)), []
    for count in (4, 60):  # each photo takes 8 MB
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / str(count)), str(count)]
        used.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]))
    print(f"memory after a benchmark of 4 and of 60 photos: {used[0]:.0f} MB and {used[1]:.0f} MB")
    assert used[1] < used[0] + 60


def test_another_benchmark_in_the_folder_is_refused(model, photos, tmp_path):
    run(model, photos[:1], folder=tmp_path / "a")
    before = (tmp_path / "a" / RESULTS_FILE).read_bytes()
    with pytest.raises(VizlibError, match=r"results.jsonl in 'a' holds a benchmark with other settings"):
        run(model, photos, folder=tmp_path / "a", seed=1)
    other = {**BOXES, "0.png": [(1, 1, 2, 2)]}
    with pytest.raises(VizlibError, match="holds a benchmark with other settings"):
        run(model, photos, folder=tmp_path / "a", boxes=other)
    with torch.no_grad():
        model.module.get_parameter("head.weight").add_(1)
    with pytest.raises(VizlibError, match="holds a benchmark with other settings"):
        run(model, photos, folder=tmp_path / "a")
    assert (tmp_path / "a" / RESULTS_FILE).read_bytes() == before


def test_unusable_photos_are_listed_and_the_others_measured(model, photos, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    given = [photos[0], str(tmp_path / "broken.png"), photos[1]]
    boxes = {**BOXES, "broken.png": [(1, 1, 9, 9)]}
    table = run(model, given, boxes=boxes, folder=tmp_path / "a")
    assert list(table.errors) == [str(tmp_path / "broken.png")]
    assert {row.photo for row in table.rows} == set(photos[:2])
    Image.open(photos[2]).save(tmp_path / "broken.png")
    again = run(model, given, boxes=boxes, folder=tmp_path / "a")
    assert (again.errors, len(again.rows)) == ({}, len(table.rows) * 3 // 2)


def test_files_hold_the_same_values(model, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = run(model, photos[:2])
    with table.save(tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [row.value for row in table.rows]
    assert parquet.read_table(table.save(tmp_path / "t.parquet"))["value"].to_pylist() == [
        row.value for row in table.rows
    ]
    found = json.loads(table.save(tmp_path / "t.json").read_text())
    assert [row["mean"] for row in found["summaries"]] == [one.mean for one in table.summaries]
    html, latex = table.save(tmp_path / "t.html").read_text(), table.save(tmp_path / "t.tex").read_text()
    for method in METHODS:
        assert method in html
        assert method in latex
    assert html.count("<b>") == latex.count(r"\textbf") == len(METRICS)
    assert "higher is better" in html
    with pytest.raises(VizlibError, match=r"cannot save as '\.xlsx'; use one of \.csv"):
        table.save(tmp_path / "t.xlsx")


def test_wrong_requests_are_one_sentence_and_leave_nothing_behind(model, photos, tmp_path):
    requests = {
        "there is no method 'grad'": {"methods": ["grad"]},
        "there is no metric 'del'": {"metrics": ["del"]},
        "the seed of max-sensitivity is that of the benchmark": {"parameters": {"max-sensitivity": {"seed": 3}}},
        "with folder= photos are given by their paths, not as ndarray": {
            "photos": [np.zeros((9, 9, 3), np.uint8)],
            "folder": tmp_path / "unused",
        },
        "energy-pointing-game needs the boxes of the objects": {"boxes": None},
        "parameters are given for rise, which the benchmark does not use": {"parameters": {"rise": {"masks": 5}}},
        r"there are no boxes for the photo": {"boxes": {}},
        "there is no label for the photo": {"labels": {"other.png": 1}},
        "give the class of each photo by labels=, or one class for all by target=": {
            "labels": {"0.png": 1},
            "target": 2,
        },
        "is given twice": {"photos": [photos[0], photos[0]]},
    }
    for message, options in requests.items():
        with pytest.raises(VizlibError, match=message):
            run(model, **{"photos": photos[:1], "folder": tmp_path / "unused", **options})
    assert not (tmp_path / "unused").exists()
