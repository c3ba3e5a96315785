"""The Model tab: values of the sidecar and the network, and no rows for what was not measured."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from bundled_models import load_bundled

import vizlib
from dashboard.components.curves import build_curve, build_curves, compute_axis_ticks
from dashboard.components.model_card import (
    build_group,
    build_model_card,
    describe_faithfulness,
    describe_ood_score,
    describe_training,
    to_plain_text,
)
from dashboard.i18n.language import use_language
from dashboard.sidebar.prediction_panel import build_prediction_panel
from dashboard.tabs import model as model_tab
from vizlib.metrics import BenchmarkSummary
from vizlib.metrics.ranking import RankedMethod, write_ranking
from vizlib.models.loading import training_history
from vizlib.models.loading.checkpoint_files import Sidecar
from vizlib.models.loading.model_index import ModelEntry
from vizlib.models.ood import OodScore
from vizlib.models.preprocessing import TimmPreprocessing

STARTS = {
    "resnet18-from-scratch": "from scratch",
    "resnet18-frozen-backbone": "frozen backbone",
    "resnet18-fine-tuned": "everything fine-tuned",
}


def rows(card: dict) -> dict[str, str]:
    """All rows of a card as text, by name."""
    return {row["name"]: "\n".join(row["lines"]) for group in card["groups"] for row in group["rows"]}


@pytest.fixture
def content(service, cheetah, name):
    return model_tab.compute_content(service, cheetah, build_prediction_panel(service, cheetah, name)[0])


@pytest.fixture
def comparison_folder(tmp_path, monkeypatch):
    """Folder with a training comparison."""
    folder = tmp_path / "comparison"
    folder.mkdir()
    for i, name in enumerate(STARTS):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("epoch", "train_top1", "val_top1"), (1, 20 + i, 30 + i), (2, 40 + i, 50 + i)])
    about: dict[str, Any] = {
        "title": "Three <starts>",
        "text": "What a backbone is worth.",
        "data": "Imagenette",
        "schedule": "SGD",
    }
    about["starts"] = {name: {"label": label, "command": f"train {name}"} for name, label in STARTS.items()}
    (folder / "comparison.json").write_text(json.dumps(about))
    monkeypatch.setattr(training_history, "BUNDLED_FOLDER", tmp_path)


def test_model_card_has_the_values_of_sidecar_and_network(service, name, content):
    card, model, entry = content[0], load_bundled(name), service.catalog.get_entry(name)
    sidecar = Sidecar.read_for(entry.path)
    accuracy: dict[str, Any] = dict(sidecar.accuracy)
    top1, (low, high) = accuracy["top1"], accuracy["interval95"]
    figures = {figure["label"]: figure["value"] for figure in card["figures"]}
    assert figures[f"top-1 accuracy; 95 % interval {low:.1f} to {high:.1f} %"] == f"{top1:.1f} %"
    parameters = sum(weights.numel() for weights in model.module.parameters())
    assert figures["parameters"] == f"{parameters / 1e6:.1f} M"
    assert figures["classes"] == "10"
    assert figures["included in vizlib"] == f"{entry.path.stat().st_size / 1e6:.0f} MB"
    card_rows = rows(card)
    assert card_rows["Architecture"].startswith(f"{sidecar.architecture}, of the ")
    assert card_rows["Classes"] == ", ".join(model.labels)
    assert card_rows["Measured on"] == f"{accuracy['photos']:,} {accuracy['data']}"
    assert isinstance(model.preprocessing, TimmPreprocessing)
    height, width = model.preprocessing.input_size
    assert card_rows["Size"] == f"{height} × {width} pixels, {model.preprocessing.interpolation}"
    assert "RGB" in card_rows["Channels"]
    assert card_rows["Mean"] == "0.485, 0.456, 0.406"
    assert card_rows["Data"] == sidecar.origin["data"]
    assert card_rows["Licence"] == sidecar.origin["data_licence"]


def test_model_card_without_sidecar_has_no_empty_rows(service):
    model = replace(service.catalog.get("resnet18-imagenette"), ood_score=None)
    card = build_model_card(ModelEntry("mine", "given", 0.0), Sidecar(), model)
    assert {figure["label"] for figure in card["figures"]} == {"parameters", "classes"}
    assert {group["heading"] for group in card["groups"]} == {"Model", "Input"}
    assert all(all(row["lines"]) for group in card["groups"] for row in group["rows"])
    assert rows(card)["Measured on"] == "Not measured here"
    assert "was not measured here" in card["lead"]


def test_model_card_of_a_download_with_many_classes(service):
    many = replace(
        service.catalog.get("resnet18-imagenette"), labels=[f"class {i}" for i in range(1000)], notes=("Odd.",)
    )
    card = build_model_card(ModelEntry("theirs", "download", 101.6, "ImageNet's 1,000 classes"), Sidecar(), many)
    assert {"value": "102 MB", "label": "must be downloaded first"} in card["figures"]
    assert rows(card)["Classes"] == "ImageNet's 1,000 classes"
    with use_language("ko"):
        assert (
            rows(build_model_card(ModelEntry("theirs", "folder", 1.0, ""), Sidecar(), many))["클래스"]
            == "클래스 1,000개"
        )
    assert rows(card)["Notes"] == "Odd."


def test_training_section_has_every_stage_with_its_command():
    stages = [
        {
            "start": "random",
            "epochs": 28,
            "minutes": 132,
            "augmentation": ["crop", "flip"],
            "teacher": None,
            "command": "a",
        },
        {"start": "the stage before", "epochs": 9, "command": "b"},
    ]
    one = describe_training({"data": "photos", "stages": stages[:1]})
    assert [group["heading"] for group in one] == ["Training"]
    card_rows = {row["name"]: row for row in one[0]["rows"]}
    assert card_rows["Augmentation"]["lines"] == ["crop, flip"]
    assert card_rows["Duration"]["lines"] == ["28 epochs, 132 minutes"]
    assert card_rows["Command"]["code"]
    assert not card_rows["Initial weights"]["code"]
    assert "Teacher" not in card_rows
    two = describe_training({"data": "photos", "stages": stages})
    assert [group["heading"] for group in two] == ["Training", "Stage 1", "Stage 2"]
    assert describe_training({"start": "random"})[0]["rows"][0]["lines"] == ["random"]  # a sidecar without stages


def test_ood_section_states_threshold_and_detection_rate(service):
    model = replace(service.catalog.get("resnet18-imagenette"), ood_score=OodScore("max-logit", 3.14, 0.95, "photos"))
    first = (
        "A photo with a max logit below 3.14 gets a note that it is unlike the training photos; "
        "95 % of photos reach this value."
    )
    assert describe_ood_score(Sidecar(), model) == [first]
    other = {"other_photos": {"photos": 1200, "flagged": 0.615, "data": "ImageNet"}}
    second = "Of 1,200 photos of other things (ImageNet), 62 % get the note."
    assert describe_ood_score(Sidecar(ood=other), model) == [first, second]
    assert describe_ood_score(Sidecar(ood=other), replace(model, ood_score=None)) == []
    assert describe_ood_score(Sidecar(ood={"other_photos": {"photos": "many"}}), model) == [first]


def test_faithfulness_section_states_the_measured_result():
    tested = {"method": "grad-cam", "auc": 0.31, "centred_gaussian": 0.4256, "photos": 200}
    card_rows = describe_faithfulness(Sidecar(faithfulness=tested))
    assert "lowers the probability faster than" in card_rows
    assert "0.310 against 0.426, mean of 200 photos" in card_rows
    assert "does not lower the probability faster than" in describe_faithfulness(
        Sidecar(faithfulness={**tested, "auc": 0.5})
    )
    assert describe_faithfulness(Sidecar()) == ""
    assert describe_faithfulness(Sidecar(faithfulness={"auc": "low"})) == ""


def test_model_card_lists_the_weaknesses(service):
    card = build_model_card(
        ModelEntry("mine", "given", 0.0),
        Sidecar(weaknesses=["Dogs.", "Cats."]),
        service.catalog.get("vit_tiny-imagenette"),
    )
    assert rows(card)["Weaknesses"] == "Dogs.\nCats."


@pytest.mark.parametrize("odd", [{"a": 1}, None, True, [{}]])
def test_malformed_sidecar_values_are_left_out(odd):
    assert to_plain_text(odd) == ""
    assert build_group("heading", {"row": to_plain_text(odd)})["rows"] == []


def test_curves_are_the_training_history(name, content):
    _, caption, value, *_ = content
    history = vizlib.training_history(name)
    validation, trained = value["lines"]
    assert (validation["name"], trained["name"]) == ("validation", "training")
    assert validation["x"] == list(history["epoch"])
    assert validation["y"] == list(history["val_top1"])
    assert trained["y"] == list(history["train_top1"])
    assert (validation["dashed"], trained["dashed"]) == (False, True)
    assert validation["colour"] != trained["colour"]
    assert f"validation from {history['val_top1'][0]:.1f} to {history['val_top1'][-1]:.1f}" in value["alt"]
    assert "Training history" in caption


def test_a_local_file_does_not_get_the_curves_of_a_bundled_network(name):
    assert model_tab.build_history_curves(ModelEntry(name, "folder", 1.0)) == {}
    assert model_tab.build_history_curves(ModelEntry("no-history", "bundled", 1.0)) == {}


def test_curves_mark_the_start_of_a_second_stage(monkeypatch):
    history = {
        "epoch": (1.0, 2.0, 3.0),
        "stage": (1.0, 1.0, 2.0),
        "val_top1": (1.0, 2.0, 3.0),
        "train_top1": (1.0, 2.0, 3.0),
    }
    monkeypatch.setattr(model_tab, "list_training_histories", lambda: ("x",))
    monkeypatch.setattr(model_tab, "training_history", lambda name: history)
    assert model_tab.build_history_curves(ModelEntry("x", "bundled", 1.0))["marks"] == [{"at": 3.0, "name": "stage 2"}]


def test_training_comparison_shows_three_initialisations(comparison_folder):
    value, caption, card = model_tab.build_training_comparison()
    named = [line for line in value["lines"] if not line["faint"]]
    assert [line["name"] for line in named] == list(STARTS.values())
    assert [line["y"] for line in named] == [[30, 50], [31, 51], [32, 52]]
    assert len({line["colour"] for line in named}) == 3
    assert [line["y"] for line in value["lines"] if line["faint"]] == [[20, 40], [21, 41], [22, 42]]
    assert all(line["dashed"] == line["faint"] for line in value["lines"])
    assert "Three &lt;starts&gt;" in caption
    assert "What a backbone is worth." in caption
    assert rows(card)["From scratch"] == "train resnet18-from-scratch"
    assert rows(card)["Schedule"] == "SGD"
    assert "Licence" not in rows(card)


@pytest.mark.parametrize("content", [None, "no JSON", "{}", '{"starts": {"unknown": {}}}'])
def test_an_incomplete_training_comparison_is_left_out(tmp_path, monkeypatch, content):
    monkeypatch.setattr(training_history, "BUNDLED_FOLDER", tmp_path)
    if content is not None:
        (tmp_path / "comparison").mkdir()
        (tmp_path / "comparison" / "comparison.json").write_text(content)
    assert model_tab.build_training_comparison() == ({}, "", {})


def test_model_tab_without_a_photo(service):
    assert model_tab.compute_content(service, None, None) == (
        {"empty": model_tab.get_no_photo_text()},
        "",
        {},
        "",
        {},
    )


def test_curves_omit_missing_values_and_have_round_ticks():
    line = build_curve("a", (1, 2, 3), (50.0, float("nan"), 60.0), colour=0)
    assert (line["x"], line["y"]) == ([1, 3], [50, 60])
    assert build_curves([build_curve("a", (1,), (float("inf"),), colour=0)], label="x") == {}
    assert compute_axis_ticks([33.6, 84.2]) == [30, 40, 50, 60, 70, 80, 90]
    assert compute_axis_ticks([5, 5]) == [5, 6]
    assert compute_axis_ticks([1, 300])[1] - compute_axis_ticks([1, 300])[0] == 50


def test_ranking_of_methods_shows_means_intervals_and_reference_maps(service, cheetah, name, tmp_path, monkeypatch):
    def summarise(method, metric, mean, rank, gaussian):
        return BenchmarkSummary(
            method, metric, mean, mean - 0.1, mean + 0.1, rank, 0.5, 0.9, gaussian, math.nan, 12, 0.1
        )

    rows = [
        RankedMethod("photos with boxes", "", summarise("grad-cam", "deletion", 0.3, 2, 0.4)),
        RankedMethod("photos with boxes", "", summarise("rise", "deletion", 0.2, 1, 0.6)),
        RankedMethod("other photos", "samples=5", summarise("grad-cam", "max-sensitivity", 0.25, 1, math.nan)),
    ]
    write_ranking(tmp_path / f"{name}.csv", rows)
    monkeypatch.setattr(model_tab, "RANKINGS_FOLDER", tmp_path)
    selection = build_prediction_panel(service, cheetah, name)[0]
    *_, caption, table = model_tab.compute_content(service, cheetah, selection)
    assert name in caption
    assert [column["name"] for column in table["columns"]] == ["deletion", "max-sensitivity"]
    assert [column["data"] for column in table["columns"]] == ["12 photos"] * 2
    assert table["columns"][1]["parameters"] == "samples=5"
    assert [row["name"] for row in table["rows"]] == ["grad-cam", "rise"]
    first, second = table["rows"]
    assert [cell["text"] for cell in first["cells"]] == ["0.3", "0.25"]
    assert first["cells"][0]["interval"] == "0.2 – 0.4"
    assert [cell["best"] for row in (first, second) for cell in row["cells"]] == [False, True, True, False]
    assert second["cells"][1] == {"text": "–", "interval": "", "value": None, "best": False}
    assert [row["cells"] for row in table["references"]] == [["0.5", "0.5"], ["0.5", "–"], ["–", "–"]]
    (tmp_path / f"{name}.csv").unlink()
    assert model_tab.compute_content(service, cheetah, selection)[3:] == ("", {})
