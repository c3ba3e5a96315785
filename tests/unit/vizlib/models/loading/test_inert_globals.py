"""Checkpoints with plain data besides weights are loaded without any class of the data; code in them is refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import pickle
import sys
import threading
import types
import uuid

import numpy as np
import pytest
import timm
import torch

import vizlib
from vizlib import ModelError
from vizlib.models.loading import inert_globals
from vizlib.models.loading.checkpoint_files import read_checkpoint

DATA = {
    "training arguments": argparse.Namespace(
        lr=0.1, betas=(0.9, 0.999), output=pathlib.Path("runs"), best=np.float32(2)
    ),
    "NumPy numbers": [np.float64(1), np.float16(1), np.int64(3), np.uint8(3), np.bool_(True), np.str_("a")],
    "NumPy arrays": [np.arange(4), np.ones((2, 3), order="F"), np.asarray(["a", "b"]), np.asarray([{}], dtype=object)],
    "NumPy types": [np.dtype("f4"), np.dtype([("a", "i4")]), np.float32, type(np.dtype("f8"))],
    "random states": [np.random.RandomState(0).get_state(), torch.get_rng_state()],
    "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")],
    "times": [datetime.datetime(2025, 1, 2), datetime.timedelta(3), datetime.timezone.utc],
    "collections": [
        collections.defaultdict(list, {1: [2]}),
        collections.deque([1], maxlen=2),
        collections.Counter("a"),
    ],
    "namespaces": types.SimpleNamespace(a=[1, {2: 3}]),
    "Python's own": [
        range(3),
        slice(1, 2),
        {1},
        frozenset([1]),
        1j,
        b"a",
        bytearray(b"a"),
        10**30,
        float,
        uuid.UUID(int=3),
    ],
    "version of torch": torch.__version__,
}


@pytest.fixture(scope="module")
def weights():
    return timm.create_model("test_resnet", num_classes=4).state_dict()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_load_takes_weights_beside_plain_data(tmp_path, weights, name, legacy):
    content = {"state_dict": weights, "other": DATA[name]}
    torch.save(content, tmp_path / "my.pth", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "my.pth")
    assert all(torch.equal(read["state_dict"][key], value) for key, value in weights.items())  # type: ignore[index]
    if not legacy:
        assert len(vizlib.load(tmp_path / "my.pth").labels) == 4


@pytest.mark.parametrize(
    "place", ["easydict.EasyDict", "yacs.config.CfgNode", "lightning.pytorch.utilities.parsing.AttributeDict"]
)
def test_load_takes_configurations_of_packages_that_are_not_installed(tmp_path, monkeypatch, weights, place):
    module, _, name = place.rpartition(".")
    parts = module.split(".")
    config = type(name, (dict,), {"__module__": module})  # a dictionary with attributes, as these packages define one
    for i in range(len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[: i + 1]), types.ModuleType(module))
    setattr(sys.modules[module], name, config)
    content = config(lr=config(base=0.1))
    content.__dict__["lr"] = 0.1
    torch.save({"model": weights, "hyper_parameters": content}, tmp_path / "my.ckpt")
    monkeypatch.undo()
    assert len(vizlib.load(tmp_path / "my.ckpt").labels) == 4


class Call:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.pair = function, arguments

    def __reduce__(self):
        return self.pair


@pytest.mark.parametrize(
    "call",
    [
        Call(print, "this ran"),
        Call(getattr, pathlib.Path, "touch"),
        Call(pathlib.Path.touch, pathlib.Path("written")),
        Call(argparse.FileType(), "written"),
        Call(np.load, "written"),
        Call(np.fromfile, "written"),
        Call(collections.namedtuple, "a", "b"),
        Call(timm.create_model, "resnet18"),
    ],
    ids=lambda call: getattr(call.pair[0], "__name__", "FileType"),
)
@pytest.mark.parametrize("beside", [None, argparse.Namespace(a=1)])
def test_load_refuses_functions_beside_plain_data(tmp_path, monkeypatch, capfd, weights, call, beside):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": weights, "other": call, "beside": beside}, tmp_path / "my.pth")
    with pytest.raises(ModelError, match="contains more than weights"):
        vizlib.load(tmp_path / "my.pth")
    assert not (tmp_path / "written").exists()
    assert "this ran" not in capfd.readouterr().out


def test_stand_ins_take_the_place_of_classes_and_are_never_called_with_effect(tmp_path, monkeypatch):
    """The class in a file is not even imported."""
    calls = []
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *_, **__: calls.append("init"))
    monkeypatch.setattr(argparse.Namespace, "__setstate__", lambda *_: calls.append("state"), raising=False)
    content = {"w": torch.ones(1), "args": argparse.Namespace.__new__(argparse.Namespace)}
    content["args"].__dict__["a"] = 1
    torch.save(content, tmp_path / "my.pth")
    read = read_checkpoint(tmp_path / "my.pth")
    assert type(read["args"]) is inert_globals.InertObject  # type: ignore[index]
    assert calls == []


def test_reading_leaves_pytorchs_table_of_safe_classes_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"w": torch.ones(1), "args": argparse.Namespace(a=1)}, tmp_path / "my.pth")
    read_checkpoint(tmp_path / "my.pth")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Call(print)))
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "bad.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "my.pth", weights_only=True)


@pytest.mark.slow
def test_threads_read_checkpoints_with_plain_data_at_the_same_time(tmp_path):
    torch.save({"w": torch.ones(1), "args": [argparse.Namespace(a=i) for i in range(300)]}, tmp_path / "my.pth")
    errors = []

    def read() -> None:
        try:
            for _ in range(10):
                read_checkpoint(tmp_path / "my.pth")
        except ModelError as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
