"""Weight files are loaded or refused with one line; nothing in a file is executed."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

import vizlib
from vizlib import ModelError
from vizlib.models.loading import checkpoint_files

ARCHITECTURE = "test_resnet"  # timm's network for tests: half a million parameters
LABELS = [f"thing {i}" for i in range(7)]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=7).eval()


@pytest.fixture
def weights(network) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def save(path: Path, weights, **sidecar) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def load_error(path: Path, *words: str, names: str | None = None, **options) -> str:
    """Return the one-line error of loading a file, after checking that it names the file and contains the words."""
    with pytest.raises(ModelError) as caught:
        vizlib.load(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text
    assert not text.endswith(".")
    assert (names or path.name) in text
    for word in words:
        assert word in text
    return text


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".PTH"])
def test_load_takes_every_file_type(tmp_path, weights, network, ending):
    path = save(tmp_path / f"mine{ending}", weights, architecture=ARCHITECTURE, labels=LABELS)
    model = vizlib.load(path)
    assert model.name == "mine"
    assert model.labels == tuple(LABELS)
    photo = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.module(photo), network(photo))


def test_load_takes_str_path_and_home_directory(tmp_path, weights, monkeypatch):
    save(tmp_path / "mine.pth", weights, architecture=ARCHITECTURE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for path in (str(tmp_path / "mine.pth"), tmp_path / "mine.pth", "~/mine.pth"):
        assert len(vizlib.load(path).labels) == 7


def test_load_converts_half_precision_to_the_networks_dtype(tmp_path, weights):
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    module = vizlib.load(save(tmp_path / "half.safetensors", half), architecture=ARCHITECTURE).module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    for key, value in module.state_dict().items():
        assert torch.equal(value, half[key].to(value.dtype))


def test_load_reads_the_number_of_classes_from_the_classifier(tmp_path, weights):
    assert len(vizlib.load(save(tmp_path / "seven.pth", weights), architecture=ARCHITECTURE).labels) == 7
    vit = timm.create_model("test_vit", num_classes=11).state_dict()
    assert len(vizlib.load(save(tmp_path / "eleven.pth", vit), architecture="test_vit").labels) == 11
    other = timm.create_model("test_efficientnet", num_classes=5).state_dict()
    assert len(vizlib.load(save(tmp_path / "five.pth", other), architecture="test_efficientnet").labels) == 5


class Malice:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", [".pth", ".pt"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "optimizer"])
@pytest.mark.parametrize("pickled_by", ["torch", "legacy", "pickle"])
def test_load_refuses_a_pickle_with_code_before_it_runs(tmp_path, pickled_by, wrapper, ending):
    written, path = tmp_path / "written", tmp_path / f"evil{ending}"
    content = {"weight": torch.ones(2), "evil": Malice(written)}
    if wrapper == "state_dict":
        content = {"epoch": 3, "state_dict": content}
    elif wrapper == "optimizer":  # beside harmless weights
        content = {"state_dict": {"weight": torch.ones(2)}, "optimizer": {"state": [content]}}
    if pickled_by == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=pickled_by == "torch")
    text = load_error(path, architecture=ARCHITECTURE)
    assert not written.exists()
    assert "weights_only" not in text, "PyTorch advises to disable the check"
    if pickled_by != "pickle":
        assert "it uses Python's" in text
    with path.open("rb") as file:  # check that the file is in fact dangerous
        torch.load(file, weights_only=False) if pickled_by != "pickle" else pickle.load(file)
    assert written.exists()


@pytest.mark.parametrize("pickled_by", ["torch", "legacy", "pickle"])
def test_load_never_unpickles_a_safetensors_file(tmp_path, pickled_by):
    written, path = tmp_path / "written", tmp_path / "evil.safetensors"
    if pickled_by == "pickle":
        path.write_bytes(pickle.dumps(Malice(written), protocol=2))
    else:
        torch.save({"evil": Malice(written)}, path, _use_new_zipfile_serialization=pickled_by == "torch")
    load_error(path, "damaged, truncated or not a .safetensors file")
    load_error(path, "damaged, truncated or not a .safetensors file", architecture=ARCHITECTURE)
    assert not written.exists()


def test_load_refuses_sidecar_arguments_that_would_unpickle_a_file(tmp_path, weights):
    written = tmp_path / "written"
    torch.save({"evil": Malice(written)}, tmp_path / "evil.bin")
    for argument in ("checkpoint_path", "pretrained_cfg"):
        evil = str(tmp_path / "evil.bin")
        arguments = {argument: evil if argument == "checkpoint_path" else {"file": evil}, "pretrained": True}
        path = save(tmp_path / "mine.safetensors", weights, architecture=ARCHITECTURE, arguments=arguments)
        load_error(path, "would load other weights; remove it from the sidecar", names=argument)
    assert not written.exists()


@pytest.mark.parametrize(
    ("suffix", "wrong_suffix"), [(".pth", ".safetensors"), (".safetensors", ".pth"), (".safetensors", ".pt")]
)
def test_load_refuses_a_file_with_the_wrong_suffix(tmp_path, weights, suffix, wrong_suffix):
    path = save(tmp_path / f"mine{suffix}", weights, architecture=ARCHITECTURE)
    load_error(path.rename(path.with_suffix(wrong_suffix)), f"damaged, truncated or not a {wrong_suffix} file")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_load_refuses_a_file_truncated_anywhere(tmp_path, weights, ending, share):
    path = save(tmp_path / f"mine{ending}", weights)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    load_error(path, "damaged, truncated or not", "download or save it again")


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_load_refuses_sparse_and_meta_tensors(tmp_path, weights, kind):
    key = "layer1.0.conv1.weight"
    weights[key] = weights[key].to_sparse() if kind == "sparse" else weights[key].to("meta")
    load_error(save(tmp_path / "mine.pth", weights), names="mine.pth")


def test_load_refuses_a_pickled_module_with_advice(tmp_path, network):
    torch.save(network, tmp_path / "whole.pth")
    load_error(tmp_path / "whole.pth", "torch.save(model.state_dict(), path)", architecture=ARCHITECTURE)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:'torch.load' received a zip file")
def test_load_refuses_a_torchscript_program(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    load_error(tmp_path / "script.pt", "TorchScript", architecture=ARCHITECTURE)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello, I am a text\n", b"<html>", b'{"json": 1}', b"PK\x03\x04 no zip", b"\x80\x02}q\x00.", b"\x89PNG\r\n"],
    ids=["empty", "text", "web page", "JSON", "zip", "pickle", "picture"],
)
def test_load_refuses_files_of_other_types(tmp_path, ending, content):
    path = tmp_path / f"other{ending}"
    path.write_bytes(content)
    load_error(path, "damaged, truncated or not", "download or save it again", architecture=ARCHITECTURE)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("ending", [".safetensors", ".pth", "legacy.pth"])
def test_read_checkpoint_raises_only_model_errors_for_corrupted_files(tmp_path, ending):
    path = tmp_path / f"victim{ending}"
    weights = {"weight": torch.arange(300.0), "bias": torch.ones(2, 2)}
    if "legacy" in ending:
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    else:
        save(path, weights)
    content, rng = path.read_bytes(), random.Random(0)
    for cut in [*range(20), *rng.sample(range(len(content)), 60), len(content) - 1]:
        path.write_bytes(content[:cut])
        if cut == len(content) - 1 and "legacy" in ending:
            continue
        load_error(path, architecture=ARCHITECTURE)
    for _ in range(120):
        damaged = bytearray(content)
        for index in rng.sample(range(min(len(content), 1500)), 3):
            damaged[index] = rng.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ModelError):  # any other exception fails the test
            checkpoint_files.read_checkpoint(path)


def test_load_suggests_similar_file_names(tmp_path, weights):
    load_error(tmp_path / "none.pth", "there is no file", "check its folder")
    save(tmp_path / "resnet18_best.pth", weights)
    load_error(tmp_path / "resnet18_bets.pth", "did you mean resnet18_best.pth?")


def test_load_refuses_a_folder_and_other_suffixes(tmp_path):
    load_error(tmp_path / "weights.txt", "expected a name with .safetensors, .pth, .pt, .ckpt, .bin")
    (tmp_path / "folder.pth").mkdir()
    for folder in (tmp_path / "folder.pth", tmp_path):
        load_error(folder, "holds no weights", "expected a file with .safetensors, .pth")


@pytest.mark.parametrize(
    ("name", "what", "instead"),
    [
        ("net.onnx", "an ONNX graph", "torch.save(model.state_dict(), path)"),
        ("net.pt2", "a program of torch.export", "torch.save(model.state_dict(), path)"),
        ("net.H5", "a file of Keras", "convert it"),
        ("net.npz", "a file of NumPy arrays", "model.load_pretrained(path)"),
        ("net.pkl", "a pickle, which may run code", "rename it to .pth"),
        ("net.msgpack", "a file of Flax", "convert it"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_load_says_what_a_file_of_another_format_is_and_what_to_do(tmp_path, name, what, instead, exists):
    if exists:
        (tmp_path / name).write_bytes(b"")
    load_error(tmp_path / name, what, instead, names=name)
    with pytest.raises(ModelError, match=what):
        vizlib.load(str(tmp_path / name))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".pt", ".bin"])
def test_load_recognises_a_program_of_torch_export_by_its_content(tmp_path, ending):
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "net.pt2").rename(tmp_path / f"net{ending}")
    load_error(tmp_path / f"net{ending}", "a program of torch.export, not weights")


def test_load_checks_the_sha256_of_the_sidecar(tmp_path, weights):
    path = save(tmp_path / "mine.pth", weights, architecture=ARCHITECTURE, sha256="0" * 64)
    load_error(path, "its sha256 differs", "mine.json", "download it again")
    for digest in (checkpoint_files.hash_file(path), checkpoint_files.hash_file(path).upper()):
        path.with_suffix(".json").write_text(json.dumps({"architecture": ARCHITECTURE, "sha256": digest}))
        assert len(vizlib.load(path).labels) == 7


def test_load_detects_or_requires_the_architecture(tmp_path, weights):
    assert len(vizlib.load(save(tmp_path / "mine.pth", weights)).labels) == 7
    load_error(
        save(tmp_path / "mine.pth", {"weight": torch.ones(2)}), "give architecture=", "--architecture", "mine.json"
    )


def test_load_suggests_similar_architectures(tmp_path, weights):
    path = save(tmp_path / "mine.pth", weights)
    load_error(path, "did you mean resnet18", architecture="resnet_18", names="'resnet_18'")
    load_error(path, "did you mean resnet18", architecture="torchvision/resnet_18", names="'resnet_18'")


def test_load_names_arguments_that_the_architecture_does_not_take(tmp_path, weights):
    path = save(tmp_path / "mine.pth", weights, architecture=ARCHITECTURE, arguments={"imgsize": 3})
    load_error(path, "imgsize", names=ARCHITECTURE)


def test_load_names_the_first_differences_from_a_wrong_architecture(tmp_path, weights):
    path = save(tmp_path / "mine.pth", weights)
    load_error(path, "does not fit the architecture resnet18", "missing, such as", architecture="resnet18")
    load_error(path, "does not fit the architecture test_vit", "missing, such as", architecture="test_vit")
    path = save(tmp_path / "mine.pth", weights, architecture="resnet26")
    load_error(path, "does not fit the architecture resnet26", "missing, such as")


def test_load_names_a_missing_weight(tmp_path, weights):
    del weights["layer1.0.conv1.weight"]
    path = save(tmp_path / "mine.pth", weights)
    load_error(path, "1 of its weights are missing, such as layer1.0.conv1.weight", architecture=ARCHITECTURE)


def test_load_names_an_unexpected_weight(tmp_path, weights):
    weights["head.extra"] = torch.ones(1)
    path = save(tmp_path / "mine.pth", weights)
    load_error(path, "others that may be part of the network: head.extra", architecture=ARCHITECTURE)


def test_load_names_both_shapes_of_a_mismatched_weight(tmp_path, weights):
    key = "layer1.0.conv1.weight"
    expected = " × ".join(map(str, weights[key].shape))
    weights[key] = torch.ones(2, 3)
    path = save(tmp_path / "mine.pth", weights)
    load_error(path, f"{key} is 2 × 3, expected {expected}", architecture=ARCHITECTURE)


@pytest.mark.parametrize("count", [6, 8])
def test_load_refuses_labels_of_another_number_than_the_classes(tmp_path, weights, count):
    labels = [f"thing {i}" for i in range(count)]
    path = save(tmp_path / "mine.pth", weights, architecture=ARCHITECTURE, labels=labels)
    load_error(path, "has 7 classes", f"mine.json names {count}")
    path = save(tmp_path / "mine.pth", weights, architecture=ARCHITECTURE)
    load_error(path, "has 7 classes", f"labels= names {count}", labels=labels)


@pytest.mark.parametrize(
    "content",
    [{"epoch": 3}, [torch.ones(1)], torch.ones(1), {}, {"weight": [1, 2]}, 3],
    ids=["no tensors", "list", "tensor", "empty", "lists", "number"],
)
def test_load_describes_content_that_is_not_a_state_dict(tmp_path, content):
    path = save(tmp_path / "mine.pth", content)
    load_error(path, "not a state dict of named tensors", "state_dict()", architecture=ARCHITECTURE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not JSON", "is not JSON"),
        ("", "is not JSON"),
        ("[1, 2]", "must hold a JSON object, not a list"),
        ('"text"', "must hold a JSON object, not a str"),
        ("7", "must hold a JSON object, not a int"),
        ('{"labels": "tench"}', "must give labels as a list of strings"),
        ('{"labels": {"0": "tench"}}', "must give labels as a list of strings"),
        ('{"labels": [1, 2, 3, 4, 5, 6, 7]}', "must give labels as a list of strings"),
        ('{"architecture": 18}', "must give architecture as a string"),
        ('{"arguments": [1]}', "must give arguments as an object"),
        ('{"preprocessing": "imagenet"}', "must give preprocessing as an object"),
        ('{"sha256": 12}', "must give sha256 as a string"),
        ('{"accuracy": 93.1}', "must give accuracy as an object"),
        ('{"ood": "energy"}', "must give ood as an object"),
        ('{"weaknesses": [1]}', "must give weaknesses as a list of strings"),
        pytest.param("[" * 100_000, "is not JSON", id="too deep"),
    ],
)
def test_load_refuses_a_malformed_sidecar(tmp_path, weights, text, message):
    path = save(tmp_path / "mine.pth", weights)
    path.with_suffix(".json").write_text(text)
    load_error(path, message, names="mine.json", architecture=ARCHITECTURE)


def test_load_takes_a_sidecar_with_byte_order_mark_but_no_other_encoding(tmp_path, weights):
    path = save(tmp_path / "mine.pth", weights)
    path.with_suffix(".json").write_bytes('{"labels": "é"}'.encode("latin-1"))
    load_error(path, "is not JSON", names="mine.json", architecture=ARCHITECTURE)
    content = json.dumps(
        {"architecture": ARCHITECTURE, "labels": LABELS, "sha256": None, "remark": "unknown fields are allowed"}
    )
    path.with_suffix(".json").write_bytes(content.encode("utf-8-sig"))
    assert vizlib.load(path).labels == tuple(LABELS)


def test_bundled_checkpoints_have_the_sha256_and_labels_of_their_sidecars():
    names = ["clip-digits", "resnet18-imagenette", "vit_tiny-imagenet", "vit_tiny-imagenette"]
    assert list(checkpoint_files.list_bundled()) == names
    for name, path in checkpoint_files.list_bundled().items():
        sidecar = checkpoint_files.Sidecar.read_for(path)
        assert sidecar.sha256 == checkpoint_files.hash_file(path)
        assert vizlib.load(name).labels == tuple(sidecar.labels or ())
