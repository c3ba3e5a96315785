"""Training histories are the values of their CSV files."""

from __future__ import annotations

import csv
import json

import pytest

import vizlib
from vizlib import VizlibError
from vizlib.models.loading import checkpoint_files, training_history


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one history and a comparison of two initialisations."""
    (tmp_path / "mine.csv").write_text("epoch,lr,val_top1\n1,0.1,33.5\n2,1e-3,45.25\n")
    (tmp_path / "notes.txt").write_text("no history")
    (tmp_path / "comparison").mkdir()
    for name in ("scratch", "finetuned"):
        (tmp_path / "comparison" / f"{name}.csv").write_text("epoch,val_top1\n1,50\n")
    monkeypatch.setattr(training_history, "BUNDLED_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", list(checkpoint_files.list_bundled()))
def test_training_history_equals_the_csv_of_each_bundled_network(name):
    history = vizlib.training_history(name)
    with (checkpoint_files.BUNDLED_FOLDER / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(history) == list(rows[0])
    columns = {"epoch", "lr", "train_loss", "val_top1"}
    if name.endswith("imagenette"):
        columns |= {"size", "train_top1", "val_loss", "seconds"}
    assert columns <= history.keys()
    assert len(rows) > 1
    for column, values in history.items():
        assert values == tuple(float(row[column]) for row in rows)


def test_training_history_returns_the_values_of_the_file(folder):
    assert training_history.list_training_histories() == ("mine", "finetuned", "scratch")
    assert vizlib.training_history("mine") == {"epoch": (1, 2), "lr": (0.1, 0.001), "val_top1": (33.5, 45.25)}
    assert vizlib.training_history("scratch") == {"epoch": (1,), "val_top1": (50,)}


def test_training_history_of_a_header_only_file_has_empty_columns(folder):
    (folder / "mine.csv").write_text("epoch,val_top1\n")
    assert vizlib.training_history("mine") == {"epoch": (), "val_top1": ()}


def test_training_history_suggests_similar_names(folder):
    with pytest.raises(VizlibError) as caught:
        vizlib.training_history("finetund")
    assert str(caught.value) == "there is no training history 'finetund'; did you mean finetuned?"
    with pytest.raises(VizlibError, match="there are mine, finetuned, scratch"):
        vizlib.training_history("../../etc/passwd")


def test_read_training_comparison_returns_the_json_file(folder):
    assert training_history.read_training_comparison() == {}
    content = {"title": "Three starts", "starts": {"scratch": {"label": "ü", "command": "python"}}}
    text = json.dumps(content, ensure_ascii=False)
    (folder / "comparison" / "comparison.json").write_text(text, encoding="utf-8")
    assert training_history.read_training_comparison() == content


def test_read_training_comparison_is_empty_if_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(training_history, "BUNDLED_FOLDER", tmp_path)
    assert training_history.read_training_comparison() == {}
    assert training_history.list_training_histories() == ()
