"""Code that computes an attribution again: in Python, in a shell, through `gradio_client`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.result import Attribution, ExplainedRecord, FunctionName
from vizlib.attribution.target import RUNNER_UP
from vizlib.core.errors import TargetError
from vizlib.core.text import shorten_label
from vizlib.models.clip.prompts import PLACEHOLDER
from vizlib.models.model import Model

# What a snippet names as target: a class, weights of classes, a complement or function, or nothing.
ExplainedName = int | str | Mapping[int | str, float] | None
MAX_LINE_LENGTH = 72  # characters; a longer call gets one line per argument


class CodeSnippet(NamedTuple):
    """The arguments from which an attribution was computed, and code in three languages that repeats it.

    All texts may come from untrusted files, so each is quoted for the language in which it is written.

    Attributes:
        model: Name or file as `load` takes it.
        method: Name of the method.
        target: Number or name of the target class, weights of classes by number or name, or the name of a function;
            `None` for the default of the model.
        against: Number or name of the contrast class, if there is one.
        parameters: The method's parameters that differ from their defaults.
        photo: File name of the photo.
        architecture: Architecture of a weight file, if `load` needs it.
        checkpoints: Folder of the user's checkpoints, if `load` needs it.
        is_wrapped: Whether the model is a network that `wrap` was given, which only the user's own code can make.
        prompts: Prompts that are the classes of the model; `None` for its own classes.
        templates: Templates that each prompt is put into; empty for none.
    """

    model: str
    method: str
    target: ExplainedName
    against: ExplainedName = None
    parameters: Mapping[str, Any] = MappingProxyType({})
    photo: str = "photo.jpg"
    architecture: str | None = None
    checkpoints: str | None = None
    is_wrapped: bool = False
    prompts: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()

    @classmethod
    def from_attribution(
        cls, attribution: Attribution, model: Model | None = None, /, **fields: str | None
    ) -> CodeSnippet:
        """Return the snippet of an attribution.

        Args:
            attribution: The attribution to compute again.
            model: Its model; if given, classes are named instead of numbered.
            **fields: Values of `photo`, `model`, `architecture` and `checkpoints`, which an attribution does not hold.
        """
        is_contrast = attribution.against is not None
        known = METHODS[attribution.method].parameters
        changed = {
            name: value
            for name, value in attribution.parameters.items()
            if name in known and not known[name].is_default(value, is_contrast=is_contrast)
        }
        target, against = (_name_explained(record, model) for record in (attribution.target, attribution.against))
        snippet = cls(attribution.model, attribution.method, target, against, changed)
        snippet = snippet._replace(is_wrapped=model is not None and model.is_wrapped)
        if model is not None and (source := model.prompt_source) is not None:
            templates = () if source.templates == (PLACEHOLDER,) else source.templates
            is_own = tuple(model.labels) == tuple(source.default_prompts) and not templates
            snippet = snippet._replace(prompts=None if is_own else tuple(map(str, model.labels)), templates=templates)
        return snippet._replace(**{name: value for name, value in fields.items() if value is not None})

    def to_python(self) -> str:
        """Return Python code that writes the overlay and the raw values."""
        comment = ""
        if self.prompts is not None:
            options = {"templates": list(self.templates)} if self.templates else {}
            arguments = [_quote(list(self.prompts)), *_format_keywords(options)]
            clip = f"vizlib.load_clip({_quote(self.model)})"
            if self.is_wrapped:
                comment = "# `network` and `tokenizer` are your own; give wrap_clip the options that you gave it\n"
                clip = f"vizlib.wrap_clip(network, tokenizer, name={_quote(self.model)})"
            load = f"clip = {clip}\n" + _format_call("model = clip.with_prompts", arguments)
        elif self.is_wrapped:
            comment = "# `network` is your own; give wrap the options that you gave it\n"
            load = _format_call("model = vizlib.wrap", ["network", *_format_keywords({"name": self.model})])
        else:
            load = _format_call("model = vizlib.load", [_quote(self.model), *_format_keywords(self._load_options())])
        options = {"method": self.method, **self._target(), **self._contrast(), **self.parameters}
        explain = _format_call("why = vizlib.explain", ["model", "photo", *_format_keywords(options)])
        if isinstance(self.target, FunctionName):
            comment += f"# {_quote(self.target)} is your function of the output, defined before\n"
        return (
            f"{comment}import vizlib\n\n{load}\nphoto = vizlib.open_image({_quote(self.photo)})\n{explain}\n"
            'why.save("why.png")  # the heat map on the photo\n'
            'why.save("why.npz")  # the raw values, also in why.heat\n'
        )

    def to_shell(self, report: str = "why.html") -> str:
        """Return a shell command that writes the overlay and a report with the raw values."""
        photo = os.path.join(".", self.photo) if self.photo.startswith("-") else self.photo
        if isinstance(self.target, FunctionName):
            return f"# {_quote(self.target)} is a function of the output, which only Python can explain\n"
        if self.is_wrapped:
            return f"# {_quote(self.model)} is a network of your own, which only Python can explain\n"
        options = {"model": self.model, **self._load_options(), "method": self.method}
        options |= {name: _format_class(value) for name, value in {**self._target(), **self._contrast()}.items()}
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items()]
        if self.prompts is not None:
            words += [f"--prompt {shlex.quote(prompt)}" for prompt in self.prompts]
            words += [f"--templates {shlex.quote(template)}" for template in self.templates]
        words += [f"--param {shlex.quote(f'{name}={_to_json(value)}')}" for name, value in self.parameters.items()]
        if self.prompts is None:
            words = [f"vizlib explain {shlex.quote(photo)}", *words, f"--report {shlex.quote(report)}"]
        else:
            words = [f"vizlib clip {shlex.quote(photo)}", *words]
        line = " ".join(words)
        return (line if len(line) <= MAX_LINE_LENGTH else " \\\n    ".join(words)) + "\n"

    def to_client(self, address: str) -> str:
        """Return Python code for `gradio_client` that sends the request to the running page at an address."""
        if isinstance(self.target, FunctionName):
            return f"# {_quote(self.target)} is a function of the output, which the page cannot explain\n"
        parameters = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters.items()
        }
        parameters |= self._contrast()
        is_prompted = self.prompts is not None
        if is_prompted:
            parameters["method"] = self.method
        options = {
            "model": self.model,
            **({"prompts": "\n".join(self.prompts or ())} if is_prompted else {"method": self.method}),
            **{name: _format_class(value) for name, value in self._target().items()},
            **({"parameters": parameters} if parameters else {}),
        }
        photo = f"photo=handle_file({_quote(self.photo)})"
        endpoint = "/clip" if is_prompted else "/explain"
        call = _format_call(
            "result, image = client.predict", [photo, *_format_keywords(options), f'api_name="{endpoint}"']
        )
        return (
            f"from gradio_client import Client, handle_file\n\nclient = Client({_quote(address)})\n{call}\n"
            'heat = result["values"]  # the raw values, row by row\n'
        )

    def _load_options(self) -> dict[str, str]:
        """The options of a snippet's `load` that name the model."""
        options = {"architecture": self.architecture, "checkpoints": self.checkpoints}
        return {name: value for name, value in options.items() if value is not None}

    def _target(self) -> dict[str, Any]:
        """Return the snippet's target class as keyword argument."""
        return {} if self.target is None else {"target": self.target}

    def _contrast(self) -> dict[str, Any]:
        """The contrast class of a snippet, as a keyword argument; empty without one."""
        return {} if self.against is None else {"against": self.against}


def _name_explained(record: ExplainedRecord, model: Model | None) -> ExplainedName:
    """Return how a code snippet names what an attribution records of its target or contrast class."""
    if isinstance(record, int):
        return find_class_name(record, model)
    if isinstance(record, Mapping):
        return {find_class_name(index, model): weight for index, weight in record.items()}
    return record


def find_class_name(index: int, model: Model | None) -> int | str:
    """Return how a code snippet names a class as the target of `explain`: first name, whole label, or number.

    A name is taken only if it is printable and resolves to this very class.
    """
    if model is None:
        return index
    for name in (shorten_label(model.labels[index]), model.labels[index]):
        if name and name.isprintable() and name != RUNNER_UP and _resolve_name(model, name) == index:
            return name
    return index


def _resolve_name(model: Model, name: str) -> int | None:
    """Return the index of the class that a snippet's name means, `None` where it means none."""
    try:
        return model.resolve_target(name, torch.empty(1, 0, dtype=torch.float32, device="cpu"))
    except TargetError:
        return None


def _format_call(function: str, arguments: list[str]) -> str:
    """Return a function call as a snippet of code."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= MAX_LINE_LENGTH:
        return line
    return f"{function}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def _format_keywords(arguments: Mapping[str, Any]) -> Iterable[str]:
    """Yield the keyword arguments of a call in a code snippet."""
    return [f"{name}={_quote(value)}" for name, value in arguments.items()]


def _quote(value: Any) -> str:
    """Return a value as a Python literal of a code snippet, strings in double quotes unless they contain one."""
    if isinstance(value, FunctionName):
        return value if value.isidentifier() else "function"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(key)}: {_quote(item)}" for key, item in value.items()) + "}"
    literal = repr(value)
    return f'"{literal[1:-1]}"' if isinstance(value, str) and literal[0] == "'" and '"' not in literal else literal


def _format_class(value: Any) -> str:
    """Return a class, or weights of classes, as the shell and the page take it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _to_json(value: Any) -> str:
    """Return a parameter's value as a shell snippet gives it: JSON, or the string itself if it is not valid JSON."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)
