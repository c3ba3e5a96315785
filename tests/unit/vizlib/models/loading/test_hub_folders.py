"""Folders as timm and transformers save them, and shards, are loaded as the network that was saved, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

import vizlib
from vizlib import ModelError
from vizlib.core.text import Note
from vizlib.models.loading import hub_folders

LABELS = ["cat", "dog", "neither"]
CONFIG = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.4, 0.4), "crop_pct": 1.0}


def network(name: str = "test_resnet", **arguments) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **{"num_classes": 3, **arguments}).eval()


def save_timm_folder(folder: Path, module: Any, *, safe: bool = True, **config) -> Path:
    """Save a network as timm does for the Hugging Face Hub."""
    module.pretrained_cfg = {**module.pretrained_cfg, **CONFIG}
    config = {"num_classes": 3, "label_names": LABELS, **config}
    save_for_hf(module, str(folder), model_config=config, safe_serialization=safe)
    return folder


def save_shards(
    folder: Path, weights: dict[str, Tensor], count: int, *, suffix: str = ".safetensors", index: bool = True
):
    """Save weights as transformers saves large ones; returns the paths of the shards and of the index."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = [f"{stem}-{i + 1:05}-of-{count:05}{suffix}" for i in range(count)]
    table = {key: names[i % count] for i, key in enumerate(weights)}
    for name in names:
        part = {key: value for key, value in weights.items() if table[key] == name}
        safetensors.torch.save_file(part, folder / name) if suffix == ".safetensors" else torch.save(
            part, folder / name
        )
    path = folder / f"{stem}{suffix}.index.json"
    if index:
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return [folder / name for name in names], path


def assert_same_outputs(model: vizlib.Model, module: nn.Module) -> None:
    photo = torch.rand(2, 3, *model.preprocessing.input_size)
    with torch.no_grad():
        outputs, expected = model.module(photo), module(photo)
    assert torch.equal(getattr(outputs, "logits", outputs), getattr(expected, "logits", expected))


def refusal(path: object, **options) -> str:
    """Return the sentence with which a path is refused."""
    with pytest.raises(ModelError) as caught:
        vizlib.load(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def codes(model: vizlib.Model) -> set[str]:
    return {note.code for note in model.notes if isinstance(note, Note)}


# ---------------------------------------------------------------------------------- timm


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("ask", ["folder", "text", "local-dir", "file"])
def test_load_of_timms_folder_reads_its_config(tmp_path, monkeypatch, ask, safe):
    module = network("test_vit", img_size=96, num_heads=4)
    folder = save_timm_folder(tmp_path / "hub", module, safe=safe, model_args={"img_size": 96, "num_heads": 4})
    file = folder / ("model.safetensors" if safe else "pytorch_model.bin")
    model = vizlib.load({"folder": folder, "text": str(folder), "local-dir": f"local-dir:{folder}", "file": file}[ask])
    assert model.name == (file.stem if ask == "file" else "hub")
    assert model.labels == tuple(LABELS)
    assert model.preprocessing.mean == CONFIG["mean"]
    assert model.preprocessing.input_size == (96, 96)
    assert not codes(model) & {"model.assumed-preprocessing", "model.detected-transformer", "model.assumed-labels"}
    assert_same_outputs(model, module)


def test_load_of_timms_folder_takes_labels_with_descriptions_and_the_callers(tmp_path):
    folder = save_timm_folder(tmp_path, network(), label_descriptions={"cat": "a cat", "dog": "a dog"})
    assert vizlib.load(folder).labels == ("a cat", "a dog", "neither")
    assert vizlib.load(folder, labels=["a", "b", "c"]).labels == ("a", "b", "c")
    assert "has 3 classes, but labels= names 2" in refusal(folder, labels=["a", "b"])


def test_sidecar_and_caller_replace_what_timms_config_states(tmp_path):
    folder = save_timm_folder(tmp_path, network())
    (folder / "model.json").write_text(
        json.dumps({"labels": ["x", "y", "z"], "preprocessing": {"mean": [0.7, 0.7, 0.7]}})
    )
    model = vizlib.load(folder)
    assert (model.labels, model.preprocessing.mean) == (("x", "y", "z"), (0.7, 0.7, 0.7))
    assert "does not fit the architecture resnet18" in refusal(folder, architecture="resnet18")


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained"])
def test_timms_config_cannot_load_another_file(tmp_path, argument):
    folder = save_timm_folder(tmp_path, network())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_args": {argument: str(tmp_path / "evil.pth")}}))
    assert f"the argument {argument} would load other weights" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not JSON", "config.json is not JSON"),
        ("[1]", "config.json must hold a JSON object, not a list"),
        ('{"architecture": "resnet_18"}', "there is no architecture 'resnet_18'; did you mean resnet18"),
        ('{"architecture": "test_resnet", "model_args": [1]}', "must give model_args and pretrained_cfg as objects"),
        ('{"architecture": "test_resnet", "model_args": {"layers": 7}}', "cannot be built"),
        pytest.param("[" * 100_000, "config.json is not JSON", id="too deep"),
    ],
)
def test_load_refuses_a_malformed_config(tmp_path, text, words):
    folder = save_timm_folder(tmp_path, network())
    (folder / "config.json").write_text(text)
    assert words in refusal(folder)


def test_a_config_beside_a_file_of_another_name_is_not_that_of_the_file(tmp_path):
    save_timm_folder(tmp_path, network())
    other = network("test_vit")
    torch.save(other.state_dict(), tmp_path / "mine.pth")
    assert_same_outputs(vizlib.load(tmp_path / "mine.pth"), other)


# ---------------------------------------------------------------------------------- shards


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("ask", ["folder", "index", "shard", "whole"])
def test_load_joins_shards(tmp_path, ask, suffix):
    module = network()
    shards, index = save_shards(tmp_path, module.state_dict(), 3, suffix=suffix)
    whole = index.with_name(index.name.removesuffix(".index.json"))
    model = vizlib.load({"folder": tmp_path, "index": str(index), "shard": shards[1], "whole": whole}[ask])
    assert len(model.labels) == 3
    assert_same_outputs(model, module)


def test_load_joins_shards_without_an_index(tmp_path):
    module = network()
    shards, _ = save_shards(tmp_path, module.state_dict(), 2, index=False)
    assert_same_outputs(vizlib.load(shards[0]), module)
    shards[0].unlink()
    text = refusal(shards[1])
    assert "model-00002-of-00002.safetensors is part of a model of 2 shards, of which 1 are missing" in text
    assert "such as model-00001-of-00002.safetensors" in text


def test_load_names_a_missing_shard_instead_of_similar_names(tmp_path):
    shards, index = save_shards(tmp_path, network().state_dict(), 3)
    shards[2].unlink()
    for path in (index, shards[0], tmp_path / "model.safetensors", tmp_path):
        text = refusal(path)
        assert "3 shards, of which 1 are missing, such as model-00003-of-00003.safetensors" in text
        assert "did you mean" not in text


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"conv1.weight": 3}}, "has no weight_map"),
        ({"weight_map": {"conv1.weight": "../other/model.safetensors"}}, "which is no weight file of its folder"),
        ({"weight_map": {"conv1.weight": "/etc/passwd"}}, "which is no weight file of its folder"),
        ({"weight_map": {"conv1.weight": "config.json"}}, "which is no weight file of its folder"),
        ([], "must hold a JSON object"),
    ],
)
def test_load_refuses_an_index_of_other_files(tmp_path, index, words):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert words in refusal(path)


def test_load_refuses_a_shard_of_a_huge_number(tmp_path):
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "model-00001-of-99999.bin")
    assert "is one of 99999 shards, but 1 are in its folder" in refusal(tmp_path / "model-00001-of-99999.bin")


# ---------------------------------------------------------------------------------- other folders


def test_load_of_a_folder_with_one_file_ignores_what_training_saves_beside_it(tmp_path):
    module = network()
    torch.save(module.state_dict(), tmp_path / "best.ckpt")
    for name in ("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth", "random_states_0.pth"):
        (tmp_path / name).write_bytes(b"")
    assert_same_outputs(vizlib.load(tmp_path), module)
    torch.save(module.state_dict(), tmp_path / "last.ckpt")
    assert "holds 2 weight files; name one of them: best.ckpt, last.ckpt" in refusal(tmp_path)


def test_load_refuses_a_folder_without_weights_and_one_that_does_not_exist(tmp_path):
    assert "holds no weights; expected a file with .safetensors" in refusal(tmp_path)
    assert "is not a weight file" in refusal(tmp_path / "none")
    assert "there is no model" in refusal("none")


def test_a_folder_named_like_a_model_does_not_hide_the_model(tmp_path, monkeypatch):
    save_timm_folder(tmp_path / "resnet18", network())
    monkeypatch.chdir(tmp_path)
    assert "the weights of resnet18 are not on this machine" in refusal("resnet18")
    assert len(vizlib.load(Path("resnet18")).labels) == 3
    assert len(vizlib.load("./resnet18").labels) == 3


def test_folder_of_checkpoints_lists_files_indices_and_folders_once(tmp_path):
    save_timm_folder(tmp_path / "hub", network())
    save_shards(tmp_path, network("test_vit").state_dict(), 2)
    torch.save(network().state_dict(), tmp_path / "last.ckpt")
    shutil.copy(tmp_path / "last.ckpt", tmp_path / "optimizer.bin")
    (tmp_path / "empty").mkdir()
    listed = {entry.name: entry for entry in vizlib.list_models(tmp_path) if entry.source == "folder"}
    assert sorted(listed) == ["hub", "last", "model"]
    assert all(entry.size_mb > 0 for entry in listed.values())
    assert vizlib.load("hub", checkpoints=tmp_path).labels == tuple(LABELS)
    assert len(vizlib.load("model", checkpoints=tmp_path).labels) == 3
    assert [path.name for path in hub_folders.list_weight_files(tmp_path)] == [
        "hub",
        "last.ckpt",
        "model.safetensors.index.json",
    ]


# ---------------------------------------------------------------------------------- transformers


def make_transformers_network(**config) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    settings = transformers.ViTConfig(image_size=224, patch_size=56, **sizes, **labels, **config)
    return transformers.ViTForImageClassification(settings).eval()


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_load_of_a_folder_of_transformers_builds_its_classifier(tmp_path, shards, ending):
    module = make_transformers_network(hidden_act="relu", layer_norm_eps=0.01)
    module.save_pretrained(tmp_path)
    if ending == ".bin" or shards:
        weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        if shards:
            save_shards(tmp_path, weights, 2, suffix=ending)
        else:
            torch.save(weights, tmp_path / "pytorch_model.bin")
    model = vizlib.load(tmp_path)
    assert type(model.module) is type(module)
    assert not model.module.training
    assert model.preprocessing.input_size == (224, 224)
    assert_same_outputs(model, module)


def test_load_of_transformers_prints_nothing_and_keeps_its_settings(tmp_path, capfd):
    make_transformers_network().save_pretrained(tmp_path)
    logging = pytest.importorskip("transformers").utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    vizlib.load(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_load_names_weights_that_a_classifier_of_transformers_does_not_use(tmp_path):
    module = make_transformers_network()
    module.save_pretrained(tmp_path)
    weights = {**module.state_dict(), "vit.pooler.dense.weight": torch.ones(32, 32)}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    model = vizlib.load(tmp_path)
    assert "model.unused-weights" in codes(model)
    assert any("does not use them: vit.pooler.dense.weight" in note for note in model.notes)


def test_load_refuses_what_transformers_cannot_build(tmp_path, monkeypatch):
    module = make_transformers_network()
    module.vit.save_pretrained(tmp_path)
    assert "lack classifier.bias, classifier.weight of ViTForImageClassification" in refusal(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    assert "do not fit its config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    assert "of the type 'bert', of which transformers" in refusal(tmp_path)
    code = {"auto_map": {"AutoModelForImageClassification": "evil.Net"}, "model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps({**config, **code}))
    (tmp_path / "evil.py").write_text("raise SystemExit('this ran')")
    assert "of the type 'own', of which transformers" in refusal(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert "which is not installed; pip install transformers" in refusal(tmp_path)


def test_load_of_a_pickle_with_code_in_a_folder_of_transformers_is_refused(tmp_path):
    make_transformers_network().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    class Malice:
        def __reduce__(self):
            return print, ("this ran",)

    torch.save({"classifier.weight": torch.ones(1), "evil": Malice()}, tmp_path / "pytorch_model.bin")
    assert "contains more than weights: it uses Python's print" in refusal(tmp_path)


def test_load_of_transformers_weights_without_config_asks_for_it(tmp_path):
    torch.save(make_transformers_network().state_dict(), tmp_path / "vit.pth")
    assert "put its config.json beside it" in refusal(tmp_path / "vit.pth")
