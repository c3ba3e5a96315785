"""Shell commands for the quality of maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import vizlib
from vizlib.cli import app
from vizlib.cli.quality import read_boxes, read_labels
from vizlib.core.errors import VizlibError
from vizlib.metrics import METRICS

RESNET = "resnet18-imagenette"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_metrics_are_listed_with_what_they_mean():
    text = run("metrics")
    assert all(f"{name}: {row.means}" in text for name, row in METRICS.items())
    assert list(json.loads(run("metrics", "--json"))) == list(METRICS)


def test_trust_prints_the_sentences_of_the_library(photo):
    model = vizlib.load(RESNET)
    attribution = vizlib.explain(model, photo, "grad-cam", layer="layer3")
    expected = vizlib.trust(model, attribution, parts=["stability"])
    options = ("-m", RESNET, "-p", "layer=layer3", "--part", "stability")
    assert str(expected.sentences[0]) in run("trust", str(photo), *options)
    found = json.loads(run("trust", str(photo), *options, "--json"))
    assert found["parameters"]["layer"] == "layer3"
    assert found["trust"]["stability"]["share"] == pytest.approx(expected.parts["stability"].share, abs=1e-4)


def test_benchmark_writes_a_table_and_continues(photo, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "boxes.csv").write_text("path,left,top,right,bottom\nphoto.png,5,5,40,50\nphoto.png,1,1,9,9\n")
    command = ["benchmark", str(photo), "-m", RESNET, "-x", "saliency", "-x", "grad-cam", "--metrics", "sparseness"]
    command += [
        "--metrics",
        "iou",
        "--boxes",
        str(tmp_path / "boxes.csv"),
        "-o",
        str(out),
        "--as",
        "csv",
        "--as",
        "tex",
    ]
    text = run(*command)
    assert "sparseness" in text
    assert "iou" in text
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "benchmark.csv", "benchmark.tex"}
    before = (out / "results.jsonl").read_bytes()
    assert run(*command) == text
    assert (out / "results.jsonl").read_bytes() == before


def test_labels_are_read_by_name_or_index(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,label,licence\na.png,church,CC\nb.png,7,CC\n")
    assert read_labels(path) == {"a.png": "church", "b.png": "7"}
    path.write_text("path,class\n")
    with pytest.raises(VizlibError, match=r"labels\.csv has no column 'label'; expected path, label"):
        read_labels(path)


def test_boxes_are_read_or_refused_in_one_sentence(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("path,left,top,right,bottom\na.png,1,2,3,4\na.png,5,6,7,8\n")
    assert read_boxes(path) == {"a.png": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    for text, message in {
        "path,left,top,right\n": "has no column 'bottom'; expected path, left, top, right, bottom",
        "path,left,top,right,bottom\na.png,1,2,x,4\n": "line 2 of boxes.csv holds no box",
        "path,left,top,right,bottom\na.png,1\n": "line 2 of boxes.csv holds no box",
    }.items():
        path.write_text(text)
        with pytest.raises(VizlibError, match=message):
            read_boxes(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VizlibError, match=r"boxes\.csv"):
        read_boxes(path)
    with pytest.raises(VizlibError, match="cannot be read as a CSV file"):
        read_boxes(tmp_path / "missing.csv")
