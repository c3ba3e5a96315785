"""`list_models`: names, order and descriptions, read without loading anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants as hub

import vizlib
from vizlib import ModelError
from vizlib.models.loading import checkpoint_files
from vizlib.models.loading.model_index import CURATED_MODELS_MB, ModelEntry, describe_classes, list_models

LABELS = [f"thing {i}" for i in range(3)]


@pytest.fixture(scope="module")
def weights():
    return timm.create_model("test_resnet", num_classes=3).state_dict()


@pytest.fixture
def folder(tmp_path, weights):
    """A folder with two files of one stem, one named like a bundled model, one like a curated one, and plain ones."""
    for name in ("my.pth", "resnet18-imagenette.pth", "b.pt", "resnet50.a1_in1k.pth", "A.PTH"):
        torch.save(weights, tmp_path / name)
    path = checkpoint_files.list_bundled()["resnet18-imagenette"]
    (tmp_path / "my.safetensors").symlink_to(path)
    for name in ("notes.txt", "my.onnx", "._my.pth", ".hidden.safetensors"):
        (tmp_path / name).write_text("not weights")
    (tmp_path / "folder.pth").mkdir()
    return tmp_path


def folder_entries(folder: Path) -> dict[str, ModelEntry]:
    return {entry.name: entry for entry in list_models(folder) if entry.source == "folder"}


def test_list_models_order_is_bundled_folder_curated(folder):
    names = [entry.name for entry in list_models(folder)]
    bundled = [entry.name for entry in list_models() if entry.bundled]
    assert set(bundled) == set(checkpoint_files.list_bundled())
    assert names[: len(bundled)] == bundled
    assert names[len(bundled) : -len(CURATED_MODELS_MB)] == list(folder_entries(folder))
    assert names[-len(CURATED_MODELS_MB) :] == list(CURATED_MODELS_MB)
    assert [entry.name for entry in list_models()] == bundled + list(CURATED_MODELS_MB)
    assert vizlib.list_models(folder) == list_models(folder)


def test_list_models_uses_the_full_file_name_if_the_stem_is_taken(folder):
    assert {name: entry.path and entry.path.name for name, entry in folder_entries(folder).items()} == {
        "A": "A.PTH",
        "b": "b.pt",
        "my.pth": "my.pth",
        "my.safetensors": "my.safetensors",
        "resnet18-imagenette.pth": "resnet18-imagenette.pth",
        "resnet50.a1_in1k.pth": "resnet50.a1_in1k.pth",
    }
    names = [entry.name for entry in list_models(folder)]
    assert len(names) == len(set(names))


def test_load_takes_every_listed_name_of_a_folder(folder, weights):
    for name in folder_entries(folder):
        model = vizlib.load(name, checkpoints=folder)
        assert model.name == name
        if name != "my.safetensors":
            assert torch.equal(model.module.state_dict()["fc.weight"], weights["fc.weight"])
    assert len(vizlib.load("my.safetensors", checkpoints=folder).labels) == 10
    assert len(vizlib.load("resnet18-imagenette", checkpoints=str(folder)).labels) == 10


def test_load_takes_a_file_name_in_the_folder_or_a_path(folder):
    assert vizlib.load("b.pt", checkpoints=folder).name == "b"
    assert vizlib.load(folder / "b.pt").name == "b"
    with pytest.raises(ModelError, match=r"there is no file .*; did you mean b\.pt"):
        vizlib.load("bb.pt", checkpoints=folder)


def test_load_suggests_names_of_the_folder(folder):
    (folder / "b.pt").rename(folder / "resnet18-flowers.pt")
    with pytest.raises(ModelError, match="did you mean resnet18-flowers"):
        vizlib.load("resnet18-flower", checkpoints=folder)


def test_list_models_reads_accuracy_and_classes_from_sidecars(folder):
    sidecar = {"labels": LABELS, "accuracy": {"top1": 91.25, "photos": 300}}
    (folder / "b.json").write_text(json.dumps(sidecar))
    entry = folder_entries(folder)["b"]
    assert (entry.accuracy, entry.classes) == (91.25, "thing 0, thing 1, thing 2")
    assert entry.size_mb == round((folder / "b.pt").stat().st_size / 1e6, 1) > 0
    assert (folder_entries(folder)["A"].accuracy, folder_entries(folder)["A"].classes) == (None, "")
    for name, entry in {entry.name: entry for entry in list_models() if entry.bundled}.items():
        sidecar = checkpoint_files.Sidecar.read_for(checkpoint_files.list_bundled()[name])
        labels = sidecar.labels or ()
        assert (entry.accuracy, entry.class_count) == (sidecar.accuracy["top1"], len(labels))
        assert entry.classes == (", ".join(labels) if len(labels) == 10 else f"{len(labels):,} classes")


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"labels": 3}', '{"accuracy": 93.1}', "[" * 100_000])
def test_list_models_tolerates_a_damaged_sidecar(folder, text):
    (folder / "b.json").write_text(text)
    entry = folder_entries(folder)["b"]
    assert (entry.accuracy, entry.classes) == (None, "")
    with pytest.raises(ModelError, match=r"the sidecar b\.json"):
        vizlib.load("b", checkpoints=folder)


@pytest.mark.parametrize("top1", ["91", None, True, float("nan"), [91.0]])
def test_list_models_ignores_an_accuracy_that_is_not_a_number(folder, top1):
    (folder / "b.json").write_text(json.dumps({"accuracy": {"top1": top1}}))
    assert folder_entries(folder)["b"].accuracy is None


def test_list_models_and_load_name_the_flag_for_a_missing_folder(folder):
    for wrong in (folder / "nowhere", folder / "b.pt"):
        for call in (list_models, lambda wrong: vizlib.load("resnet18-imagenette", checkpoints=wrong)):
            with pytest.raises(ModelError) as caught:
                call(wrong)
            assert str(caught.value).startswith(f"there is no folder {wrong}; --checkpoints expects one with ")


def test_list_models_of_an_empty_folder_equals_the_default(tmp_path):
    assert list_models(tmp_path) == list_models()


def test_list_models_marks_cached_models_as_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert [entry.name for entry in list_models() if entry.needs_download] == list(CURATED_MODELS_MB)
    snapshot = tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "models--timm--resnet18.a1_in1k" / "refs").mkdir()
    (tmp_path / "models--timm--resnet18.a1_in1k" / "refs" / "main").write_text("0123")
    file = torchvision.models.ResNet50_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / file).write_bytes(b"weights")
    cached = {entry.name: entry.source for entry in list_models() if not entry.needs_download and not entry.bundled}
    assert cached == {"resnet18.a1_in1k": "downloaded", "torchvision/resnet50": "downloaded"}


def test_describe_classes_lists_few_and_counts_many():
    assert describe_classes(LABELS) == "thing 0, thing 1, thing 2"
    assert describe_classes([]) == ""
    assert describe_classes([str(i) for i in range(1000)]) == "1,000 classes"
