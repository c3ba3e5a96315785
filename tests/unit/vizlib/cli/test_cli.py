"""Shell commands give the same results as Python; an error is one line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import timm
import torch
from typer.testing import CliRunner

import vizlib
from dashboard.services.example_photos import EXAMPLES
from vizlib.analysis.effective_receptive_field import effective_receptive_field
from vizlib.cli import app, prompts
from vizlib.cli.photo_lists import make_stems
from vizlib.text.clip_checks import ClipCheck

RESNET = ("--model", "resnet18-imagenette")
COMMANDS = (
    "explain",
    "compare",
    "estimate",
    "trust",
    "benchmark",
    "predict",
    "units",
    "receptive-field",
    "gradient",
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
def test_every_command_that_uses_models_takes_a_checkpoints_folder(command):
    calls = {row.name: row.callback for row in app.registered_commands}
    assert {*COMMANDS, "clip", "check", "docs", "metrics"} == calls.keys()
    callback = calls[command]
    assert callback is not None
    assert "checkpoints" in inspect.signature(callback).parameters


def test_models_command_lists_name_size_source_accuracy_and_classes(folder):
    (folder / "mine.json").write_text(json.dumps({"labels": ["a", "b", "c"], "accuracy": {"top1": 0.0}}))
    lines = [line.split(maxsplit=3) for line in shell("models", "--checkpoints", folder).splitlines()]
    assert [line[0] for line in lines[:-1]] == [entry.name for entry in vizlib.list_models(folder)]
    text = " ".join(shell("models", "--checkpoints", folder).split())
    resnet = next(entry for entry in vizlib.list_models() if entry.name == "resnet18-imagenette")
    assert f"resnet18-imagenette 22 MB bundled {resnet.accuracy:.1f} % tench, " in text
    assert "mine 2 MB your folder 0.0 % a, b, c resnet18.a1_in1k 47 MB download" in text
    assert "ImageNet's 1,000 classes" in text


def test_models_command_prints_json(folder):
    listed = json.loads(shell("models", "--checkpoints", folder, "--json"))
    for row, entry in zip(listed, vizlib.list_models(folder), strict=True):
        expected = {**vars(entry), "path": entry.path and str(entry.path)}
        assert row == {**expected, "bundled": entry.bundled, "needs_download": entry.needs_download}


def test_commands_load_a_file_of_the_folder_by_name(folder, photo):
    options = ("--checkpoints", folder)
    assert "class " in shell("predict", photo, "--model", "mine", *options)
    (attribution,) = json.loads(
        shell("explain", photo, "-m", "mine", "-x", "saliency", "-o", folder, "--json", *options)
    )
    assert attribution["label"].startswith("class ")
    assert "fc" in shell("layers", "mine", *options)
    assert "grad-cam" in shell("methods", "--model", "mine", *options)
    assert "mine.kernels.png" in shell("kernels", "mine", "--out", folder, *options)


def test_serve_command_passes_the_folder(folder, monkeypatch):
    app_module = pytest.importorskip("dashboard.app")
    given = {}
    monkeypatch.setattr(app_module, "run_app", lambda options: given.update(vars(options)))
    shell("serve", "--no-browser", "--checkpoints", folder)
    assert given == {**vars(app_module.ServerOptions()), "checkpoints": folder}


def test_predict_command_prints_ood_and_preprocessing_notes(folder, photo):
    say = ("predict", photo, "--model", "mine", "--checkpoints", folder)
    (folder / "mine.json").write_text(
        json.dumps({"ood": {"score": "energy", "threshold": 1000, "coverage": 0.9, "data": "photos"}})
    )
    lines = shell(*say).splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["class"] * 3
    assert lines[3].startswith("This photo is unlike the photos that the model was calibrated on: its energy is ")
    assert lines[4].startswith("mine.pth does not state its architecture; its weights fit test_resnet.")
    assert lines[5].startswith("mine.pth does not state how photos are prepared")
    assert len(lines) == 6
    preprocessing = {"input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (folder / "mine.json").write_text(json.dumps({"preprocessing": preprocessing}))
    assert len(shell(*say).splitlines()) == 4


def test_predict_command_prints_json_by_path(folder, photo):
    attribution = json.loads(shell("predict", photo, "--model", "mine", "--checkpoints", folder, "--top", 2, "--json"))
    expected = vizlib.load("mine", checkpoints=folder).predict(photo, top=2)
    assert attribution == {str(photo): [prediction._asdict() for prediction in expected]}


def test_errors_are_one_line_with_exit_code_2(folder, photo):
    assert "there is no folder" in mistake("models", "--checkpoints", folder / "nowhere")
    assert "did you mean mine" in mistake("layers", "mines", "--checkpoints", folder)
    torch.save({"weight": torch.ones(1)}, folder / "other.pth")
    assert "--architecture" in mistake("predict", photo, "--model", folder / "other.pth")
    (folder / "lightning.ckpt").write_bytes(b"weights")
    assert "lightning.ckpt is damaged, truncated or not a .ckpt file" in mistake(
        "predict", photo, "--model", folder / "lightning.ckpt"
    )


def test_estimate_command_prints_seconds_and_checks_parameters(folder):
    options = ("--checkpoints", folder, "--model", "mine")
    output = shell("estimate", "-x", "rise", "-p", "masks=32", *options)
    assert float(output.removeprefix("about ").removesuffix(" s per photo\n")) > 0
    assert "a whole number from 16 to 20000 for masks, not 3" in mistake(
        "estimate", "-x", "rise", "-p", "masks=3", *options
    )


def test_methods_command_lists_cost_and_parameter_ranges(folder):
    output = shell("methods")
    assert "rise (many passes)" in output
    assert "saliency (one pass)" in output
    assert "masks=1000, 16 to 20000: " in output


def test_explain_command_runs_methods_of_many_passes(folder, photo):
    words = (
        "-m",
        "mine",
        "--checkpoints",
        folder,
        "-x",
        "rise",
        "-p",
        "masks=20",
        "-o",
        folder,
        "--as",
        "json",
        "--json",
    )
    (attribution,) = json.loads(shell("explain", photo, *words))
    saved = json.loads((folder / "photo.rise.json").read_text())
    model = vizlib.load("mine", checkpoints=folder)
    expected = vizlib.explain(model, photo, "rise", masks=20)
    assert attribution["parameters"]["masks"] == 20
    assert torch.allclose(torch.tensor(saved["values"]), expected.heat, rtol=1e-4)


@pytest.mark.slow
def test_units_command_ranks_contributions(photo):
    model = vizlib.load("vit_tiny-imagenette")
    for layer, kind in (("blocks.5", "channels"), ("blocks.5.attn", "heads")):
        attribution = json.loads(shell("units", photo, "-m", model.name, "-l", layer, "-t", "church", "--json"))
        result = vizlib.contributions(model, photo, "church", layers=["blocks.5"])
        values = getattr(result, kind)[layer]
        assert (attribution["label"], attribution["kind"], attribution["layer"]) == ("church", kind, layer)
        assert [row["unit"] for row in attribution["units"]] == values.argsort(descending=True).tolist()[:10]
        assert [row["contribution"] for row in attribution["units"]] == pytest.approx(
            values.sort(descending=True).values[:10].tolist(), rel=1e-3, abs=1e-5
        )
        first = shell("units", photo, "-m", model.name, "-l", layer, "-t", "church", "--top", 1).splitlines()
        assert first[0].startswith(f"{kind} of {layer} for church (logit ")
        assert first[1].split()[0] == str(values.argmax().item())
        assert len(first) == 2


@pytest.mark.slow
def test_units_command_ablates_units(photo):
    model = vizlib.load("resnet18-imagenette")
    rest = vizlib.ablate(model, photo, channels={"layer4": [3, 17]})
    attribution = json.loads(shell("units", photo, *RESNET, "-l", "layer4", "--ablate", "3,17", "--json"))
    assert [row["logit"] for row in attribution] == pytest.approx([item.logit for item in rest[:5]], abs=1e-4)
    lines = shell("units", photo, *RESNET, "-l", "layer4", "--ablate", "3,17").splitlines()
    assert len(lines) == 5
    assert f"{rest[0].probability:.2%}" in lines[0]
    assert rest[0].label in lines[0]
    assert "as in 3,17, not '3;17'" in mistake("units", photo, *RESNET, "-l", "layer4", "--ablate", "3;17")
    assert "has no channel 512" in mistake("units", photo, *RESNET, "-l", "layer4", "--ablate", "512")
    assert "no layer 'layer9'" in mistake("units", photo, *RESNET, "-l", "layer9")


@pytest.mark.slow
def test_receptive_field_command_prints_theoretical_and_effective_size(photo):
    attribution = json.loads(shell("receptive-field", "layer2", *RESNET, "--photo", photo, "--cell", 5, 9, "--json"))
    model = vizlib.load("resnet18-imagenette")
    result = vizlib.receptive_field(model, "layer2")
    assert (attribution["size"], attribution["jump"], attribution["box"]) == (
        list(result.size),
        list(result.jump),
        [*result.box(5, 9)],
    )
    used = effective_receptive_field(model, photo, "layer2", (5, 9))
    assert attribution["effective"] == pytest.approx(used.size, rel=0.02)
    lines = shell("receptive-field", "layer2", *RESNET, "--photo", photo, "--cell", 5, 9).splitlines()
    assert lines[0] == "layer2: 99 × 99 pixels, stride 8 × 8 pixels"
    assert lines[1].startswith("row 5, column 9: effective receptive field about ")
    assert shell("receptive-field", "blocks.3", "-m", "vit_tiny-imagenette").strip() == "blocks.3: the whole input"
    assert json.loads(shell("receptive-field", "blocks.3", "-m", "vit_tiny-imagenette", "--json"))["whole"] is True
    assert "without spatial positions" in mistake("receptive-field", "fc", *RESNET)


@pytest.mark.slow
def test_compare_command_equals_agreement_in_python(folder, photo):
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), folder / "other.pth")
    (folder / "mine.json").write_text(json.dumps({"labels": ["a", "b", "c"]}))
    (folder / "other.json").write_text(
        json.dumps({"labels": ["c, sea", "a", "b"], "architecture": "test_vit"})
    )  # the same classes in another order
    options = ("--checkpoints", folder, "--model", "mine", "other", "-x", "saliency", "-t", "c")
    output = json.loads(shell("compare", photo, *options, "--fraction", 0.1, "--json"))
    a, b = (
        vizlib.explain(vizlib.load(name, checkpoints=folder), photo, "saliency", target=target)
        for name, target in (("mine", 2), ("other", 0))
    )
    assert [row["label"] for row in output["maps"]] == ["c", "c, sea"]
    expected = vizlib.agreement(a, b, fraction=0.1)
    assert (output["correlation"], output["overlap"]) == pytest.approx(
        (expected.correlation, expected.overlap), abs=1e-3
    )
    assert f"rank correlation {vizlib.agreement(a, b).correlation:.2f}; overlap of the strongest 20%: " in shell(
        "compare", photo, *options
    )
    assert "does not support mine" in mistake("compare", photo, *options[:5], "-x", "raw-attention")


def test_explain_command_gives_photos_of_the_same_name_different_files(folder, cheetah, tower):
    paths = [folder / "a" / "img.png", folder / "b" / "img.png", folder / "b" / "img.jpg", folder / "other.png"]
    for path, photo in zip(paths, (cheetah, tower, tower, tower), strict=True):
        path.parent.mkdir(exist_ok=True)
        photo.save(path)
    options = ("-m", "mine", "--checkpoints", folder, "-x", "saliency", "--report", folder / "why.html")
    rows = json.loads(shell("explain", *paths, *options, "-o", folder / "out", "--json"))
    names = [Path(row["file"]).name for row in rows]
    assert names == [f"{stem}.saliency.png" for stem in ("a-img.png", "b-img.png", "img.jpg", "other")]
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(names)
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    page = (folder / "why.html").read_text()
    for name in ("a/img.png", "b/img.png", "img.jpg", "other.png"):
        assert f"vizlib.open_image(&#34;{name}&#34;)" in page


def test_make_stems_are_unique_for_repeated_and_clashing_paths():
    assert make_stems([Path("img.jpg"), Path("img.jpg")]) == ["img.jpg", "img.jpg-2"]
    assert make_stems([Path("a/x.png"), Path("b/X.jpg"), Path("x.png.jpg")]) == ["a-x.png", "X.jpg", "x.png.jpg"]
    assert make_stems([Path("/x.png"), Path("/a/x.png")]) == ["x.png", "a-x.png"]


@pytest.fixture
def one_label(folder):
    """The name of a checkpoint whose sidecar describes one logit, the label llama."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=1).state_dict(), folder / "llama.pth")
    preprocessing = {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    sidecar = {"architecture": "test_resnet", "labels": ["llama"], "preprocessing": preprocessing}
    (folder / "llama.json").write_text(json.dumps({**sidecar, "output_kind": "sigmoid"}))
    (folder / "age.json").write_text(json.dumps({**sidecar, "labels": ["age"], "output_kind": "values"}))
    (folder / "age.pth").write_bytes((folder / "llama.pth").read_bytes())
    return "llama"


def test_predict_command_lists_a_single_label_with_its_complement(folder, photo, one_label):
    model = vizlib.load(one_label, checkpoints=folder)
    (prediction,) = model.predict(photo)
    lines = shell("predict", photo, "--model", one_label, "--checkpoints", folder).splitlines()
    expected = {"llama": prediction.probability, "not llama": 1 - (prediction.probability or 0)}
    listed = {label: percent for percent, label in (line.strip().split("  ", 1) for line in lines)}
    assert listed == {label: f"{probability:.2%}" for label, probability in expected.items()}
    rows = json.loads(shell("predict", photo, "--model", one_label, "--checkpoints", folder, "--json"))
    assert rows[str(photo)] == [prediction._asdict()]


def test_predict_command_lists_the_value_of_a_regression(folder, photo, one_label):
    value = vizlib.load("age", checkpoints=folder).predict(photo)[0].logit
    text = shell("predict", photo, "--model", "age", "--checkpoints", folder)
    assert text == f"{value:7.4g}  age\n"
    rows = json.loads(shell("predict", photo, "--model", "age", "--checkpoints", folder, "--json"))
    assert rows[str(photo)][0]["probability"] is None


def test_explain_command_takes_complements_and_weights(folder, photo, one_label):
    options = ("--model", one_label, "--checkpoints", folder, "--out", folder, "--json")
    (row,) = json.loads(shell("explain", photo, "--target", "not llama", *options))
    assert (row["target"], row["label"]) == ("not llama", "not llama")
    options = ("--model", "mine", "--architecture", "test_resnet", "--checkpoints", folder, "--out", folder, "--json")
    (row,) = json.loads(shell("explain", photo, "--target", '{"class 0": 1, "2": -0.5}', *options))
    assert (row["target"], row["label"]) == ({"0": 1.0, "2": -0.5}, "class 0 − 0.5 × class 2")
    assert "is not JSON" in mistake("explain", photo, "--target", "{class 0: 1}", *options[:-1])
    text = shell("explain", photo, "--model", "age", "--checkpoints", folder, "--out", folder)
    score = vizlib.explain(vizlib.load("age", checkpoints=folder), photo).score
    assert f"grad-cam for age ({score:.4g})" in text


def test_gradient_command_prints_and_saves_the_librarys_gradient(photo, tmp_path):
    found = json.loads(
        shell("gradient", photo, *RESNET, "--output", "layer4", "--unit", 17, "--at", "3,4", "--of", "layer2", "--json")
    )
    model = vizlib.load("resnet18-imagenette")
    expected = vizlib.gradient(model, photo, "layer4", unit=17, at=(3, 4), of="layer2")
    assert found["label"] == expected.label
    assert found["score"] == pytest.approx(expected.score, rel=1e-4)
    norm = expected.gradients["layer2"].double().norm().item()
    assert found["gradients"]["layer2"]["norm"] == pytest.approx(norm, rel=1e-3)
    target = '{"church": 1, "parachute": -1}'
    lines = shell("gradient", photo, *RESNET, "-t", target, "-o", tmp_path / "a.png").splitlines()
    assert lines[0].startswith("church − parachute of resnet18-imagenette: ")
    assert "gradient of image: 3 × 192 × 192" in lines[1]
    assert (tmp_path / "a.png").exists()
    assert "a position is a row and a column, as in 3,4" in mistake("gradient", photo, *RESNET, "--at", "3")
    assert "--target is a class of the outputs" in mistake(
        "gradient", photo, *RESNET, "-t", "church", "--output", "layer1"
    )


def test_clip_command_prints_the_prompts_and_words_of_the_library(tmp_path):
    picture = Path(EXAMPLES["Coloured digits"])
    file = tmp_path / "prompts.txt"
    file.write_text("a red seven\n\na blue two\n", encoding="utf-8")
    arguments = ("clip", picture, "--prompts", file, "--prompt", "a white one", "--out", tmp_path)
    found = json.loads(shell(*arguments, "--target", "a red seven", "--json"))
    model = vizlib.load_clip("clip-digits").with_prompts(["a red seven", "a blue two", "a white one"])
    assert [row["label"] for row in found["prompts"]] == [row.label for row in model.predict(picture)]
    assert found["map"]["method"] == "attention-relevance"
    assert found["words"]["values"] == pytest.approx(vizlib.explain_words(model, picture, 0).values, rel=1e-3)
    assert Path(found["file"]) == tmp_path / "digits.attention-relevance.png"
    lines = shell(*arguments, "--templates", "{} at the top left", "--method", "hires-cam", "--as", "npz").splitlines()
    assert lines[0].endswith(("a red seven", "a blue two"))
    assert lines[3].startswith("words of “a ")
    assert (tmp_path / "digits.hires-cam.npz").exists()
    assert "'elephant' is not among them; it knows a, an" in mistake("clip", picture, "--prompt", "an elephant")
    assert "cannot be read: No such file" in mistake("clip", picture, "--prompts", tmp_path / "absent.txt")


def test_check_command_passes_on_the_bundled_clip_and_fails_where_a_check_does(monkeypatch):
    lines = shell("check", "clip-digits").splitlines()
    assert len(lines) == 7
    assert all(line.startswith("passed  ") for line in lines)
    failed = ClipCheck("scores change by recording", 0.5, 1e-5, passed=False)
    monkeypatch.setattr(prompts, "check_clip", lambda *_: [failed])
    result = CliRunner().invoke(app, ["check", "clip-digits"])
    assert result.exit_code == 1
    assert result.stdout == "FAILED  scores change by recording: 0.5\n"
