"""Objects besides weights that training scripts store in a checkpoint, replaced by stand-ins that do nothing.

PyTorch's `weights_only` unpickler refuses a file that names any class or function it does not know, and so every
checkpoint that holds its training arguments or a NumPy number. The names listed here are those of plain data. A name
is mapped to a stand-in of this module, never to the class itself, so nothing that a file names is imported or called.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class InertObject:
    """Stand-in for an object of a listed class: takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *arguments: Any, **options: Any) -> InertObject:
        """Return a stand-in, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def make_inert_mapping(*arguments: Any) -> OrderedDict[Any, Any]:
    """Return an empty mapping that the unpickler may fill; stand-in for a function that makes one."""
    return OrderedDict()


def make_inert_list(*arguments: Any) -> list[Any]:
    """Return an empty list that the unpickler may fill; stand-in for a function that makes one."""
    return []


_OBJECTS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(
        f"pathlib.{name}"
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "frozenset", "int", "list", "range", "slice", "str")),
    "typing.Any",
    "uuid.UUID",
    *(
        f"numpy.{name}"
        for module in ("core", "_core")
        for name in (
            f"{module}.multiarray.scalar",
            f"{module}.multiarray._reconstruct",
            f"{module}.numeric._frombuffer",
        )
    ),
    *(
        f"numpy.{name}"
        for name in ("dtype", "ndarray", "bool_", "float16", "float32", "float64", "int32", "int64", "str_")
    ),
    *(f"numpy.dtypes.{name}DType" for name in ("Bool", "Float16", "Float32", "Float64", "Int32", "Int64", "Str")),
    "torch.torch_version.TorchVersion",
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")),
)
_MAPPINGS = (  # subclasses of dict, filled item by item
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "mmengine.config.config.ConfigDict",
    "yacs.config.CfgNode",
)
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((InertObject, name) for name in _OBJECTS),
    *((OrderedDict, name) for name in _MAPPINGS),
    (make_inert_mapping, "collections.defaultdict"),
    (make_inert_list, "collections.deque"),
]
_LOCK = threading.Lock()  # the names that PyTorch allows are one table for all threads


@contextmanager
def allow_inert_globals() -> Iterator[None]:
    """Let `torch.load(weights_only=True)` replace the listed classes by stand-ins; one thread at a time."""
    with _LOCK, torch.serialization.safe_globals(_STAND_INS):
        yield
