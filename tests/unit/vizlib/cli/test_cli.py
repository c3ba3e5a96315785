"""The shell reads the same folder, the same list and the same doubts as Python; a mistake is one sentence."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from typer.testing import CliRunner

import vizlib
from vizlib.analysis.effective_receptive_field import effective_receptive_field
from vizlib.cli import app

COMMANDS = (
    "explain",
    "compare",
    "estimate",
    "predict",
    "units",
    "field",
    "models",
    "layers",
    "methods",
    "kernels",
    "serve",
)


def shell(*words) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def mistake(*words) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("vizlib: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "mine.pth")
    return tmp_path


@pytest.fixture
def photo(tmp_path, cheetah):
    cheetah.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_loads_or_lists_takes_a_folder(command):
    calls = {row.callback.__name__: row.callback for row in app.registered_commands}
    assert set(COMMANDS) == calls.keys()
    assert calls[command].__annotations__["checkpoints"] == "Checkpoints"


def test_the_list_says_name_size_place_accuracy_and_classes(folder):
    (folder / "mine.json").write_text(json.dumps({"labels": ["a", "b", "c"], "accuracy": {"top1": 0.0}}))
    lines = [line.split(maxsplit=3) for line in shell("models", "--checkpoints", folder).splitlines()]
    assert [line[0] for line in lines[:-1]] == [entry.name for entry in vizlib.list_models(folder)]
    text = " ".join(shell("models", "--checkpoints", folder).split())
    resnet = next(entry for entry in vizlib.list_models() if entry.name == "resnet18-imagenette")
    assert f"resnet18-imagenette 22 MB bundled {resnet.accuracy:.1f} % tench, " in text
    assert "mine 2 MB your folder 0.0 % a, b, c resnet18.a1_in1k 47 MB download" in text
    assert "ImageNet's 1,000 classes" in text


def test_the_list_for_machines_is_json_with_every_entrys_facts(folder):
    listed = json.loads(shell("models", "--checkpoints", folder, "--json"))
    for row, entry in zip(listed, vizlib.list_models(folder), strict=True):
        wanted = {**vars(entry), "path": entry.path and str(entry.path)}
        assert row == {**wanted, "bundled": entry.bundled, "needs_download": entry.needs_download}


def test_each_command_finds_a_file_of_the_folder_by_name(folder, photo):
    there = ("--checkpoints", folder)
    assert "class " in shell("predict", photo, "--model", "mine", *there)
    (answer,) = json.loads(shell("explain", photo, "-m", "mine", "-x", "saliency", "-o", folder, "--json", *there))
    assert answer["label"].startswith("class ")
    assert "fc" in shell("layers", "mine", *there)
    assert "grad-cam" in shell("methods", "--model", "mine", *there)
    assert "mine.kernels.png" in shell("kernels", "mine", "--out", folder, *there)


def test_serve_is_given_the_folder(folder, monkeypatch):
    app_of = pytest.importorskip("dashboard.app")
    given = {}
    monkeypatch.setattr(app_of, "serve", lambda settings: given.update(vars(settings)))
    shell("serve", "--no-browser", "--checkpoints", folder)
    assert given == {**vars(app_of.Settings()), "checkpoints": folder}


def test_a_prediction_is_followed_by_the_doubt_and_by_what_was_assumed(folder, photo):
    say = ("predict", photo, "--model", "mine", "--checkpoints", folder)
    (folder / "mine.json").write_text(
        json.dumps({"ood": {"score": "energy", "threshold": 1000, "coverage": 0.9, "data": "photos"}})
    )
    lines = shell(*say).splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["class"] * 3
    assert lines[3].startswith("This photo is unlike the photos that the model was calibrated on: its energy is ")
    assert lines[4].startswith("mine.pth does not state how photos are prepared")
    assert len(lines) == 5
    (folder / "mine.json").write_text(json.dumps({"preprocessing": {"input_size": [3, 64, 64]}}))
    assert len(shell(*say).splitlines()) == 3


def test_a_prediction_for_machines_is_the_predictions_of_each_path(folder, photo):
    answer = json.loads(shell("predict", photo, "--model", "mine", "--checkpoints", folder, "--top", 2, "--json"))
    wanted = vizlib.load("mine", checkpoints=folder).predict(photo, top=2)
    assert answer == {str(photo): [prediction._asdict() for prediction in wanted]}


def test_a_mistake_is_one_sentence_and_code_2(folder, photo):
    assert "there is no folder" in mistake("models", "--checkpoints", folder / "nowhere")
    assert "did you mean mine" in mistake("layers", "mines", "--checkpoints", folder)
    torch.save({"weight": torch.ones(1)}, folder / "other.pth")
    assert "--architecture" in mistake("predict", photo, "--model", folder / "other.pth")
    (folder / "lightning.ckpt").write_bytes(b"weights")
    assert "lightning.ckpt is not a weight file" in mistake("predict", photo, "--model", folder / "lightning.ckpt")


def test_an_estimate_is_in_seconds_and_a_wrong_knob_is_one_sentence(folder):
    there = ("--checkpoints", folder, "--model", "mine")
    told = shell("estimate", "-x", "rise", "-k", "masks=32", *there)
    assert float(told.removeprefix("about ").removesuffix(" s a photo\n")) > 0
    assert "a whole number from 16 to 20000 for masks, not 3" in mistake(
        "estimate", "-x", "rise", "-k", "masks=3", *there
    )


def test_methods_say_what_they_cost_and_how_far_a_knob_goes(folder):
    told = shell("methods")
    assert "rise (many passes)" in told
    assert "saliency (one pass)" in told
    assert "masks=1000, 16 to 20000: how many random masks" in told


def test_a_method_of_many_passes_is_explained_and_saved_like_any_other(folder, photo):
    words = (
        "-m",
        "mine",
        "--checkpoints",
        folder,
        "-x",
        "rise",
        "-k",
        "masks=20",
        "-o",
        folder,
        "--as",
        "json",
        "--json",
    )
    (answer,) = json.loads(shell("explain", photo, *words))
    saved = json.loads((folder / "photo.rise.json").read_text())
    model = vizlib.load("mine", checkpoints=folder)
    expected = vizlib.explain(model, photo, "rise", masks=20)
    assert answer["knobs"]["masks"] == 20
    assert torch.allclose(torch.tensor(saved["values"]), expected.heat, rtol=1e-4)


def test_units_are_listed_by_what_they_contribute(photo):
    model = vizlib.load("vit_tiny-imagenette")
    for layer, kind in (("blocks.5", "channels"), ("blocks.5.attn", "heads")):
        answer = json.loads(shell("units", photo, "-m", model.name, "-l", layer, "-t", "church", "--json"))
        found = vizlib.contributions(model, photo, "church", layers=["blocks.5"])
        values = getattr(found, kind)[layer]
        assert (answer["label"], answer["kind"], answer["layer"]) == ("church", kind, layer)
        assert [row["unit"] for row in answer["units"]] == values.argsort(descending=True).tolist()[:10]
        assert [row["contribution"] for row in answer["units"]] == pytest.approx(
            values.sort(descending=True).values[:10].tolist(), rel=1e-3, abs=1e-5
        )
        first = shell("units", photo, "-m", model.name, "-l", layer, "-t", "church", "--top", 1).splitlines()
        assert first[0].startswith(f"{kind} of {layer} for church (logit ")
        assert first[1].split()[0] == str(values.argmax().item())
        assert len(first) == 2


def test_units_are_switched_off_from_the_shell(photo):
    model = vizlib.load("resnet18-imagenette")
    rest = vizlib.ablate(model, photo, channels={"layer4": [3, 17]})
    answer = json.loads(shell("units", photo, "-l", "layer4", "--off", "3,17", "--json"))
    assert [row["logit"] for row in answer] == pytest.approx([one.logit for one in rest[:5]], abs=1e-4)
    lines = shell("units", photo, "-l", "layer4", "--off", "3,17").splitlines()
    assert len(lines) == 5
    assert f"{rest[0].probability:.2%}" in lines[0]
    assert rest[0].label in lines[0]
    assert "as in 3,17, not '3;17'" in mistake("units", photo, "-l", "layer4", "--off", "3;17")
    assert "has no channel 512" in mistake("units", photo, "-l", "layer4", "--off", "512")
    assert "no layer 'layer9'" in mistake("units", photo, "-l", "layer9")


def test_a_field_is_told_and_what_a_place_really_goes_by(photo):
    answer = json.loads(shell("field", "layer2", "--photo", photo, "--cell", 5, 9, "--json"))
    model = vizlib.load("resnet18-imagenette")
    found = vizlib.receptive_field(model, "layer2")
    assert (answer["size"], answer["jump"], answer["box"]) == (list(found.size), list(found.jump), [*found.box(5, 9)])
    used = effective_receptive_field(model, photo, "layer2", (5, 9))
    assert answer["effective"] == pytest.approx(used.size, rel=0.02)
    lines = shell("field", "layer2", "--photo", photo, "--cell", 5, 9).splitlines()
    assert lines[0] == "layer2: 99 × 99 pixels, neighbours 8 × 8 pixels apart"
    assert lines[1].startswith("row 5, column 9 really goes by about ")
    assert shell("field", "blocks.3", "-m", "vit_tiny-imagenette").strip() == "blocks.3: the whole input"
    assert json.loads(shell("field", "blocks.3", "-m", "vit_tiny-imagenette", "--json"))["whole"] is True
    assert "no places in it" in mistake("field", "fc")


def test_two_models_are_compared_on_one_class_as_python_compares_them(folder, photo):
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), folder / "other.pth")
    (folder / "mine.json").write_text(json.dumps({"labels": ["a", "b", "c"]}))
    (folder / "other.json").write_text(
        json.dumps({"labels": ["c, sea", "a", "b"], "architecture": "test_vit"})
    )  # the same classes in another order
    there = ("--checkpoints", folder, "--model", "mine", "other", "-x", "saliency", "-t", "c")
    told = json.loads(shell("compare", photo, *there, "--share", 0.1, "--json"))
    a, b = (
        vizlib.explain(vizlib.load(name, checkpoints=folder), photo, "saliency", target=target)
        for name, target in (("mine", 2), ("other", 0))
    )
    assert [one["label"] for one in told["maps"]] == ["c", "c, sea"]
    expected = vizlib.agreement(a, b, fraction=0.1)
    assert (told["correlation"], told["overlap"]) == pytest.approx((expected.correlation, expected.overlap), abs=1e-3)
    assert f"rank correlation {vizlib.agreement(a, b).correlation:.2f}; of the strongest 20%, " in shell(
        "compare", photo, *there
    )
    assert "does not fit" in mistake("compare", photo, *there[:5], "-x", "raw-attention")
