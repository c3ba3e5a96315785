"""The lines that make the same map again: in Python, in a shell, through `gradio_client`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import RUNNER_UP
from vizlib.attribution.result import Attribution
from vizlib.core.errors import TargetError
from vizlib.models.model import Model

WIDE = 72  # characters; a call that is longer gets a line for each of its arguments


class CodeSnippet(NamedTuple):
    """What one map is made of. Any of its texts may be a stranger's: each is quoted for the language it stands in."""

    model: str  # as `load` takes it
    method: str
    target: int | str
    against: int | str | None = None
    parameters: Mapping[str, Any] = MappingProxyType({})  # those that are turned
    photo: str = "photo.jpg"
    architecture: str | None = None
    checkpoints: str | None = None

    @classmethod
    def from_attribution(cls, answer: Attribution, model: Model | None = None, /, **places: str | None) -> CodeSnippet:
        """The recipe of an attribution; given its model, with classes by name.

        `places` are the fields that an attribution does not know: `photo`, `model` as it was loaded, `architecture`,
        `checkpoints`.
        """
        rival = answer.parameters.get("against")
        offered = METHODS[answer.method].parameters
        turned = {name: value for name, value in answer.parameters.items() if name in offered}
        turned = {name: value for name, value in turned.items() if value != offered[name].default}
        if turned.get("relu") is (rival is None):
            turned.pop("relu")  # as it is when left alone
        recipe = cls(
            answer.model,
            answer.method,
            find_class_name(answer.target, model),
            rival if rival is None else find_class_name(int(str(rival)), model),
            turned,
        )
        return recipe._replace(**{name: value for name, value in places.items() if value is not None})

    def to_python(self) -> str:
        """The lines for Python: a picture, and the raw values, which are in `why.heat` too."""
        load = _call("model = vizlib.load", [_text(self.model), *_named(self._where())])
        asked = {"method": self.method, "target": self.target, **self._against(), **self.parameters}
        explain = _call("why = vizlib.explain", ["model", "photo", *_named(asked)])
        return (
            f"import vizlib\n\n{load}\nphoto = vizlib.open_image({_text(self.photo)})\n{explain}\n"
            'why.save("why.png")  # the photo with the heat upon it\n'
            'why.save("why.npz")  # the raw values\n'
        )

    def to_shell(self, report: str = "why.html") -> str:
        """The line for a shell: a picture, and a report that holds the raw values too."""
        photo = os.path.join(".", self.photo) if self.photo.startswith("-") else self.photo
        asked = {"model": self.model, **self._where(), "method": self.method, "target": self.target, **self._against()}
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in asked.items()]
        words += [f"--knob {shlex.quote(f'{name}={_json(value)}')}" for name, value in self.parameters.items()]
        words = [f"vizlib explain {shlex.quote(photo)}", *words, f"--report {shlex.quote(report)}"]
        whole = " ".join(words)
        return (whole if len(whole) <= WIDE else " \\\n    ".join(words)) + "\n"

    def to_client(self, address: str) -> str:
        """The lines for `gradio_client`, which asks a running page."""
        knobs = {name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters.items()}
        knobs |= self._against()
        asked = {"model": self.model, "method": self.method, "target": str(self.target), "knobs": knobs}
        asked = {name: value for name, value in asked.items() if value != {}}
        photo = f"photo=handle_file({_text(self.photo)})"
        call = _call("numbers, picture = client.predict", [photo, *_named(asked), 'api_name="/explain"'])
        return (
            f"from gradio_client import Client, handle_file\n\nclient = Client({_text(address)})\n{call}\n"
            'heat = numbers["values"]  # the raw values, row by row\n'
        )

    def _where(self) -> dict[str, str]:
        given = {"architecture": self.architecture, "checkpoints": self.checkpoints}
        return {name: value for name, value in given.items() if value is not None}

    def _against(self) -> dict[str, int | str]:
        return {} if self.against is None else {"against": self.against}


def find_class_name(index: int, model: Model | None) -> int | str:
    """The first name of a class, or all of them, where that finds it again and can be typed, else its number."""
    if model is None:
        return index
    for name in (model.labels[index].split(",")[0].strip(), model.labels[index]):
        if name and name.isprintable() and name != RUNNER_UP and _finds(model, name) == index:
            return name
    return index


def _finds(model: Model, name: str) -> int | None:
    try:
        return model.resolve_target(name, torch.empty(1, 0))
    except TargetError:
        return None


def _call(function: str, arguments: list[str]) -> str:
    line = f"{function}({', '.join(arguments)})"
    return line if len(line) <= WIDE else f"{function}(\n" + "".join(f"    {one},\n" for one in arguments) + ")"


def _named(arguments: Mapping[str, Any]) -> Iterable[str]:
    return [f"{name}={_text(value)}" for name, value in arguments.items()]


def _text(value: Any) -> str:
    """A value as Python writes it, its texts in double quotes where they hold none."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_text(one)}" for key, one in value.items()) + "}"
    written = repr(value)
    return f'"{written[1:-1]}"' if isinstance(value, str) and written[0] == "'" and '"' not in written else written


def _json(value: Any) -> str:
    """A knob's value as the shell takes it: JSON, but text that reads as no JSON stands as it is."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)
