"""Gradients of anything: vector-Jacobian products of a layer's output with respect to earlier layers or the image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.attribution.target import TargetSpec
from vizlib.capture import compute_gradients
from vizlib.core.atomic_files import open_atomic
from vizlib.core.errors import ModelError, TargetError, VizlibError, suggest_names
from vizlib.core.geometry import Geometry
from vizlib.core.images import PhotoSource
from vizlib.core.text import format_number, make_note
from vizlib.models.model import Model
from vizlib.render.overlay import overlay_heat

IMAGE = "image"  # name of the model's input among the tensors that gradients are taken of
LOGITS = "logits"  # name of the outputs of the network
SAVE_FORMATS = (".png", ".npz", ".json")
MAX_DUAL_ERROR = 1e-3  # a larger relative error of the dual identity is noted
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda gradient: gradient.abs().amax(0),
    "norm": lambda gradient: gradient.norm(dim=0),
    "sum": lambda gradient: gradient.sum(0),
}


@dataclass(frozen=True, eq=False)
class Gradient:
    """A vector-Jacobian product v^T J of a layer's output with respect to earlier layers or the image.

    Attributes:
        model: Name of the model.
        output: Name of the layer that is differentiated, or `"logits"`.
        label: What of its output is differentiated, in words.
        score: The number whose gradient this is: the weighted sum of the output, or the value of the function.
        weights: The weights v of the output, in its shape without the batch axis; of a function its gradient there.
        gradients: v^T J by the name of each layer or `"image"`, in its shape without the batch axis.
        dual_error: Relative error of the dual identity <v, J u> = <J^T v, u> for u = J^T v, the largest among the
            tensors; `None` where it was not checked.
        photo: The photo.
        geometry: Where on it the model's input lies.
        notes: What is worth knowing, one sentence each.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> gradient = vizlib.gradient(model, photo, "layer4", unit=17, at=(3, 4), of=["layer2", "image"])
        >>> gradient.gradients["layer2"].shape
        torch.Size([128, 24, 24])
        >>> gradient.heat().shape
        torch.Size([192, 192])
    """

    model: str
    output: str
    label: str
    score: float
    weights: Tensor
    gradients: Mapping[str, Tensor]
    dual_error: float | None
    photo: Image.Image
    geometry: Geometry
    notes: tuple[str, ...] = ()
    _maps: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.gradients.items())
        return f"<Gradient of {self.label} of {self.model}: {shapes}>"

    def heat(self, of: str = IMAGE, reduction: str = "max") -> Float[Tensor, "h w"]:
        """Return a gradient as one map over the model's input.

        Args:
            of: `"image"`, or a layer with positions.
            reduction: What a position shows of its channels: `"max"` of the absolute values, `"norm"` or `"sum"`.

        Raises:
            VizlibError: For a tensor whose gradient was not taken, that has no positions, or an unknown reduction.
        """
        if of not in self.gradients:
            raise VizlibError(f"no gradient was taken of {of!r}; {suggest_names(of, list(self.gradients))}")
        if of not in self._maps:
            raise VizlibError(f"the output of {of} has no positions, so its gradient is no map")
        if reduction not in REDUCTIONS:
            raise VizlibError(f"the reduction is one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        return REDUCTIONS[reduction](self._maps[of])

    def overlay(self, of: str = IMAGE, reduction: str = "max") -> Image.Image:
        """Return a gradient as a map on the photo.

        Args:
            of: As in `heat`.
            reduction: As in `heat`.

        Raises:
            VizlibError: As `heat`.
        """
        heat = self.heat(of, reduction).numpy()
        size = self.photo.height, self.photo.width
        shown = self.geometry.project_to_photo(heat, size, smooth=True)
        return overlay_heat(self.photo, shown, signed=reduction == "sum")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but the tensors, with the shapes of these, ready for JSON."""
        return {
            "model": self.model,
            "output": self.output,
            "label": self.label,
            "score": self.score,
            "gradients": {
                name: {"shape": list(tensor.shape), "norm": tensor.double().norm().item()}
                for name, tensor in self.gradients.items()
            },
            "dual_error": self.dual_error,
            "notes": list(self.notes),
        }

    def save(self, path: str | Path, of: str = IMAGE) -> Path:
        """Write a map on the photo (`.png`), the tensors (`.npz`), or the facts (`.json`).

        Args:
            path: Path of the file; its suffix selects what is written.
            of: Of which tensor the map is, as in `heat`.

        Returns:
            The path.

        Raises:
            VizlibError: For another suffix, or if the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in SAVE_FORMATS:
            raise VizlibError(f"cannot save as {path.suffix or path.name!r}; use one of {', '.join(SAVE_FORMATS)}")
        picture = self.overlay(of) if path.suffix == ".png" else None
        with open_atomic(path) as file:
            if picture is not None:
                picture.save(file, "PNG")
            elif path.suffix == ".json":
                file.write((json.dumps(self.to_dict(), indent=1) + "\n").encode())
            else:
                arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in self.gradients.items()}
                np.savez(file, weights=self.weights.numpy(), **arrays)
        return path


def gradient(
    model: Model,
    photo: PhotoSource,
    output: str | None = None,
    weights: Any = None,
    *,
    of: str | Sequence[str] = IMAGE,
    unit: int | None = None,
    at: tuple[int, int] | None = None,
    check: bool = True,
) -> Gradient:
    """Return the gradient of any layer's output, or of a part of it, with respect to earlier layers or the image.

    It is the vector-Jacobian product v^T J, where J is the Jacobian of the output and v are weights of its elements:
    what PyTorch computes in `output.backward(gradient=v)`.

    Args:
        model: The model.
        photo: Anything that `vizlib.open_image` takes.
        output: Name of the layer; by default the outputs of the network.
        weights: The weights v: a tensor in the shape of the output, with or without the batch axis; of the outputs of
            the network also weights by class, such as `{"church": 1, "parachute": -1}`; or a function of the output
            that returns one number, with PyTorch operations. By default all of a layer's output weighs 1, and of the
            outputs of the network the likeliest class.
        of: Names of the layers, or `"image"`, with respect to which the gradient is taken; they come before the output.
        unit: Index of a channel of the layer, instead of weights.
        at: (row, column) of a position of the layer, instead of weights; with `unit` one number of the output.
        check: Whether the dual identity is checked, which takes two more backward passes.

    Returns:
        The gradients.

    Raises:
        ImageError: If the photo cannot be read.
        ModelError: For an unknown layer, unit or position, or a layer that does not come before the output.
        TargetError: For weights that do not fit the output, or a function that returns no single number.
        MethodError: If the output does not depend on the tensors by differentiable operations.

    Example:
        >>> import numpy as np, torch, vizlib
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photo = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
        >>> difference = vizlib.gradient(model, photo, weights={"church": 1, "parachute": -1})
        >>> same = vizlib.gradient(model, photo, weights=lambda logits: logits[0, 4] - logits[0, 9])
        >>> torch.allclose(difference.gradients["image"], same.gradients["image"], atol=1e-5)
        True
    """
    sources = [of] if isinstance(of, str) else list(dict.fromkeys(of))
    layers = [name for name in sources if name != IMAGE] + ([] if output is None else [output])
    _check_request(model, output, sources, weights, unit, at)
    # With its attention recorded a network computes it by operations whose gradient has a gradient, for the check.
    run = model.run(photo, layers=layers, attention=check and bool(model.attention_layers), rules=False)
    with torch.inference_mode(False), torch.enable_grad():
        values = run.logits if output is None else run.activations[output]
        compute_score, label = _make_score(model, output, values, weights, unit, at)
        score = compute_score(values)
        if not (isinstance(score, Tensor) and score.numel() == 1):
            shape = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise TargetError(f"the function of {label} returns {shape}; expected a tensor with one number")
        score = score.reshape(())
        tensors = [run.image if name == IMAGE else run.activations[name] for name in sources]
        gradients = compute_gradients(score, tensors)
        (own,) = compute_gradients(score, [values])
        error = _compute_dual_error(values, own, tensors, gradients) if check else None
    by_name = dict(zip(sources, gradients, strict=True))
    found = {name: _to_cpu(tensor[0] if len(tensor) == 1 else tensor) for name, tensor in by_name.items()}
    maps = {name: _find_map(model, name, tensor) for name, tensor in by_name.items()}
    notes = [*run.notes]
    if check and error is None:
        notes.append(make_note("jacobian.unchecked"))
    elif error is not None and not error <= MAX_DUAL_ERROR:
        notes.append(make_note("jacobian.inexact", error=format_number(error)))
    notes += [make_note("jacobian.zero", output=label, of=name) for name, tensor in found.items() if not tensor.any()]
    return Gradient(
        model=model.name,
        output=output or LOGITS,
        label=label,
        score=score.item(),
        weights=_to_cpu(own[0] if len(own) == 1 else own),
        gradients=found,
        dual_error=error,
        photo=run.photo,
        geometry=run.geometry,
        notes=tuple(notes),
        _maps={name: _to_cpu(found_map) for name, found_map in maps.items() if found_map is not None},
    )


def _check_request(
    model: Model, output: str | None, sources: Sequence[str], weights: Any, unit: int | None, at: Any
) -> None:
    """Raise an error for a request that no pass can answer."""
    if not sources:
        raise ModelError(f"of= names nothing; give layers, or {IMAGE!r}")
    if (unit is not None or at is not None) and (output is None or weights is not None):
        raise TargetError("unit= and at= choose a part of a layer: give output=, and no weights=")
    order = {name: place for place, name in enumerate(model.running_order)}
    for name in sources:
        if output is not None and name in order and output in order and order[name] >= order[output]:
            raise ModelError(
                f"{name} does not come before {output}, so that the output of {output} cannot depend on it"
            )


def _make_score(
    model: Model, output: str | None, values: Tensor, weights: Any, unit: int | None, at: tuple[int, int] | None
) -> tuple[Callable[[Tensor], Tensor], str]:
    """Return the function of the output whose gradient is taken, and what it is in words."""
    name = output or LOGITS
    if callable(weights) and not isinstance(weights, Tensor):
        function: Any = weights
        return function, f"a function of {name}"
    if output is None and not isinstance(weights, (Tensor, np.ndarray)):
        spec = TargetSpec.resolve(model, values, weights, None)
        compute = spec.make_score("value")
        assert spec.target is not None
        return lambda logits: compute(logits).sum(), spec.target.label
    if weights is not None:
        given = torch.as_tensor(weights).to(values)
        given = given[None] if given.ndim == values.ndim - 1 else given
        if given.shape != values.shape:
            shapes = tuple(torch.as_tensor(weights).shape), tuple(values.shape[1:])
            raise TargetError(f"the weights have the shape {shapes[0]}; expected {shapes[1]}, that of {name}")
        return lambda tensor: (tensor * given).sum(), f"{name}, weighted"
    if unit is None and at is None:
        return torch.Tensor.sum, name
    return _make_part_score(model, name, values, unit, at)


def _make_part_score(
    model: Model, name: str, values: Tensor, unit: int | None, at: tuple[int, int] | None
) -> tuple[Callable[[Tensor], Tensor], str]:
    """Return the function that sums a channel, a position or one number of a layer, and what it is in words."""
    found = model.spatial_map(values)
    if found is None:
        found = values.reshape(-1, 1, 1)
        if at is not None:
            raise ModelError(f"the output of {name} has no positions; leave at= out")
    channels, rows, columns = found.shape
    if unit is not None and not 0 <= unit < channels:
        raise ModelError(f"{name} has the channels 0 to {channels - 1}, and no channel {unit}")
    if at is not None and not (len(at) == 2 and 0 <= at[0] < rows and 0 <= at[1] < columns):
        raise ModelError(
            f"{name} has {rows} × {columns} positions, and none at row and column {', '.join(map(str, at))}"
        )
    part: Any = (slice(None) if unit is None else unit, *((slice(None), slice(None)) if at is None else at))

    def compute_score(tensor: Tensor) -> Tensor:
        spatial_map = model.spatial_map(tensor)
        return (tensor.reshape(-1, 1, 1) if spatial_map is None else spatial_map)[part].sum()

    words = [] if unit is None else [f"channel {unit}"]
    words += [] if at is None else [f"row {at[0]}, column {at[1]}"]
    return compute_score, f"{name}, {', '.join(words)}"


def _compute_dual_error(
    values: Tensor, own: Tensor, tensors: Sequence[Tensor], gradients: Sequence[Tensor]
) -> float | None:
    """Return the largest relative error of <v, J u> = <J^T v, u> for u = J^T v; `None` where J u cannot be computed.

    J u is the derivative of <w^T J, u> by w, so that no second implementation of the backward pass is needed.
    """
    errors = []
    for tensor, direction in zip(tensors, gradients, strict=True):
        size = direction.double().square().sum()
        if not size > 0:
            continue
        probe = torch.zeros_like(values, requires_grad=True)
        try:
            (pulled,) = torch.autograd.grad(values, tensor, probe, create_graph=True, retain_graph=True)
            (pushed,) = torch.autograd.grad(pulled, probe, direction, retain_graph=True)
        except RuntimeError:  # an operation whose gradient has none
            return None
        errors.append(((own.double() * pushed.double()).sum() - size).abs().item() / size.item())
    return max(errors, default=0.0)


def _find_map(model: Model, name: str, tensor: Tensor) -> Tensor | None:
    """Return a gradient as "channels h w"; `None` for a layer without positions."""
    return tensor[0] if name == IMAGE else model.spatial_map(tensor)


def _to_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()
