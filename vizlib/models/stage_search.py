"""Find the stages of a network of no known family from the maps that the network itself can return of them.

timm's networks return the maps of their stages from `forward_intermediates`, those of transformers with
`output_hidden_states`: rows, columns and order of the positions are then the network's own. A layer counts as a stage
only if it outputs the values of such a map, so that no layout is guessed: windows, permuted tokens and attention scores
never match.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.capture import alter_output, compute_gradients, record_pass
from vizlib.capture.module_watch import watch_outputs
from vizlib.core.errors import MethodError
from vizlib.models.families.layouts import Size, StageLayout, to_spatial_map

AXES = ("channels first", "channels last", "tokens")
MAX_MAP_ERROR = 1e-5  # of a layer's output, as a share of the largest value of the map it is compared with
MAX_CANCELLED_SHARE = 1e-3  # of activation times gradient that is left of its sum over the channels of a position


@dataclass(frozen=True)
class FoundStages:
    """The stages of a network of no known family.

    Attributes:
        names: Names of the layers, shallow to deep.
        layout: How their outputs are laid out.
    """

    names: tuple[str, ...]
    layout: StageLayout


@dataclass(frozen=True)
class _Match:
    """A layer whose output holds the values of a map: its name, the largest difference, and its prefix tokens.

    Attributes:
        name: Name of the layer.
        error: Largest difference, as a share of the largest value of the map.
        is_recorded: Whether the network names the layer as a stage in timm's `feature_info`.
        prefix_count: Number of tokens before the first position.
    """

    name: str
    error: float
    is_recorded: bool
    prefix_count: int

    def is_better(self, other: _Match | None) -> bool:
        """Return whether this layer, which ran later, is the better name of a stage than another one."""
        if other is None:
            return self.error <= MAX_MAP_ERROR
        return (self.error, not self.is_recorded) <= (other.error, not other.is_recorded)


def find_stages(module: nn.Module, image: Float[Tensor, "1 3 h w"]) -> FoundStages | None:
    """Return the layers of a network that output the maps that the network returns of its stages.

    Args:
        module: The network, in evaluation mode.
        image: A random input.

    Returns:
        The stages; `None` for a network that returns no such maps, or whose layers do not output them.
    """
    with torch.inference_mode(False), torch.no_grad():
        maps, recorded = _compute_stage_maps(module, image), set(_list_recorded_names(module))
        matches: dict[str, dict[int, _Match]] = {axes: {} for axes in AXES}

        def compare_output(name: str, output: Tensor) -> None:
            for index, expected in enumerate(maps):
                for axes, prefix_count, found in _read_layouts(output, expected):
                    match = _Match(name, _compute_error(found, expected), name in recorded, prefix_count)
                    if match.is_better(matches[axes].get(index)):
                        matches[axes][index] = match

        if maps:
            with watch_outputs(module, compare_output):
                module(image)
    axes = max(AXES, key=lambda axes: len(matches[axes]))
    found = matches[axes]
    if not found:
        return None
    names = tuple(dict.fromkeys(found[index].name for index in sorted(found)))
    grids = tuple(dict.fromkeys(_get_grid(maps[index]) for index in sorted(found)))
    prefix_counts = tuple(sorted({match.prefix_count for match in found.values()} | {0}))
    return FoundStages(names, StageLayout(axes, grids, prefix_counts))


def _compute_stage_maps(module: nn.Module, image: Tensor) -> list[Float[Tensor, "channels rows columns"]]:
    """Return the maps with several positions that a network returns of its stages; empty if it returns none."""
    maps: list[Any] = []
    for part in _list_parts_with_intermediates(module).values():
        forward: Callable[..., Any] = part.forward_intermediates  # type: ignore[assignment]
        with contextlib.suppress(Exception):  # the network is third-party code and may raise anything
            maps = maps or list(forward(image, output_fmt="NCHW", intermediates_only=True))
            maps = maps if all(isinstance(item, Tensor) for item in maps) else []
    if not maps and type(module).__module__.startswith("transformers."):
        with contextlib.suppress(Exception):
            output = module(image, output_hidden_states=True)
            maps = list(getattr(output, "reshaped_hidden_states", None) or output.hidden_states or ())
    return [
        item[0]
        for item in maps
        if isinstance(item, Tensor) and item.ndim == 4 and len(item) == 1 and min(item.shape[2:]) > 1
    ]


def _list_parts_with_intermediates(module: nn.Module) -> dict[str, nn.Module]:
    """Return the network, and its only outermost part, that have timm's `forward_intermediates`, by name."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        is_inside = any(outer and name.startswith(f"{outer}.") for outer in found)
        if not is_inside and callable(getattr(part, "forward_intermediates", None)):
            found[name] = part
    inner = [name for name in found if name]
    return found if len(inner) <= 1 else {name: part for name, part in found.items() if not name}


def _list_recorded_names(module: nn.Module) -> Iterator[str]:
    """Yield the names of the stages that a network of timm, or the one inside, records."""
    for name, part in _list_parts_with_intermediates(module).items():
        recorded = getattr(part, "feature_info", None)
        for entry in recorded if isinstance(recorded, (list, tuple)) else ():
            if isinstance(entry, dict) and "module" in entry:
                yield f"{name}.{entry['module']}" if name else str(entry["module"])


def _read_layouts(output: Tensor, expected: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """Yield each reading of a layer's output with the shape of a stage's map: axes, prefix tokens and the map."""
    if not output.is_floating_point() or output.ndim not in (3, 4) or len(output) != 1:
        return
    channels, rows, columns = expected.shape
    if output.ndim == 4 and output.shape[1:] == expected.shape:
        yield "channels first", 0, output[0]
    if output.ndim == 4 and output.shape[1:] == (rows, columns, channels):
        yield "channels last", 0, output[0].movedim(-1, 0)
    prefix_count = output.shape[1] - rows * columns
    if output.ndim == 3 and output.shape[2] == channels and prefix_count >= 0:
        layout = StageLayout("tokens", ((rows, columns),), (prefix_count,))
        found = to_spatial_map(output, None, layout)
        assert found is not None
        yield "tokens", prefix_count, found


def _compute_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference between a layer's output and a stage's map, as a share of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)).item()


def _get_grid(maps: Tensor) -> Size:
    """Return rows and columns of a stage's map."""
    return int(maps.shape[1]), int(maps.shape[2])


# ------------------------------------------------------------------------------- layers for class activation maps


def list_stages_with_gradient(
    module: nn.Module,
    image: Float[Tensor, "1 3 h w"],
    compute_outputs: Callable[[Tensor], Tensor],
    stages: FoundStages,
) -> list[str]:
    """Return the stages whose positions receive gradient of a network's outputs, deepest first.

    A block before a classifier of the class token has none: only that token is read of its output.

    Args:
        module: The network that `compute_outputs` runs.
        image: Input to measure at.
        compute_outputs: Function that returns the network's outputs "1 n" for an input.
        stages: The stages of the network.
    """
    found: list[str] = []
    _, gradients = _compute_layer_gradients(module, image, compute_outputs, stages.names)
    for name in reversed(stages.names):
        gradient = to_spatial_map(gradients[name], None, stages.layout)
        if gradient is not None and gradient.any():
            found.append(name)
    return found


def find_normalised_layer(
    module: nn.Module,
    image: Float[Tensor, "1 3 h w"],
    compute_outputs: Callable[[Tensor], Tensor],
    stages: FoundStages,
    cam_layer: str,
    following_norms: Sequence[str],
) -> tuple[str, StageLayout] | None:
    """Return the layer at which activation times gradient does not cancel over channels, and the layout of its output.

    Args:
        module: The network that `compute_outputs` runs.
        image: Input to measure at.
        compute_outputs: Function that returns the network's outputs "1 n" for an input.
        stages: The stages of the network.
        cam_layer: Name of the default layer of class activation maps.
        following_norms: Names of the normalisation layers that run after it, in that order.

    Returns:
        `cam_layer` if the products do not cancel there; else the first normalisation that all the gradient at its
        positions passes through; `None` if there is none.
    """

    def measure_product(layer: str, layout: StageLayout, detached: str | None = None) -> tuple[float, float]:
        """Return the size of a layer's gradient at its positions, and the share of the sum that is left."""
        hook = alter_output(module, detached, Tensor.detach) if detached else contextlib.nullcontext()
        with hook:
            recorded = _compute_layer_gradients(module, image, compute_outputs, [layer])
        activation, gradient = (to_spatial_map(tensors[layer], None, layout) for tensors in recorded)
        if activation is None or gradient is None:
            return 0.0, 0.0
        product = (activation * gradient).float()
        total = product.abs().sum().clamp(min=torch.finfo(torch.float32).tiny)
        return gradient.float().norm().item(), (product.sum(0).abs().sum() / total).item()

    size, remaining = measure_product(cam_layer, stages.layout)
    if remaining > MAX_CANCELLED_SHARE:
        return cam_layer, stages.layout
    for norm in following_norms:
        layout = _find_norm_layout(module, image, stages.layout, cam_layer, norm)
        if layout is None or measure_product(cam_layer, stages.layout, norm)[0] > MAX_MAP_ERROR * size:
            continue
        own_size, own_remaining = measure_product(norm, layout)
        if own_size and own_remaining > MAX_CANCELLED_SHARE:
            return norm, layout
    return None


def _find_norm_layout(
    module: nn.Module, image: Tensor, layout: StageLayout, cam_layer: str, norm: str
) -> StageLayout | None:
    """Return the layout of the output of a normalisation that has a stage's positions; `None` for any other output.

    Class tokens that are put before the positions after the stage are recognised by the values: each position is then
    what the normalisation makes of that position of the stage.
    """
    with torch.inference_mode(False), torch.no_grad(), record_pass(module, [cam_layer, norm], rules=False) as recording:
        module(image)
    stage, output = (recording.activations[name] for name in (cam_layer, norm))
    maps, own = to_spatial_map(stage, None, layout), to_spatial_map(output, None, layout)
    if maps is None or own is not None:
        return layout if maps is not None and own is not None and own.shape == maps.shape else None
    prefix_count = output.shape[1] - maps.shape[1] * maps.shape[2] if output.ndim == 3 else 0
    if prefix_count <= 0 or stage.ndim != 3 or output.shape[2] != maps.shape[0]:
        return None
    layout = StageLayout("tokens", (_get_grid(maps),), (prefix_count,))
    with torch.inference_mode(False), torch.no_grad():
        expected = module.get_submodule(norm)(stage[:, stage.shape[1] - maps[0].numel() :])
    return layout if _compute_error(output[:, prefix_count:], expected) <= MAX_MAP_ERROR else None


def _compute_layer_gradients(
    module: nn.Module, image: Tensor, compute_outputs: Callable[[Tensor], Tensor], layers: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the outputs of layers, and the gradients there of a random combination of a network's outputs."""
    with torch.inference_mode(False), torch.enable_grad():
        pixels = image.detach().clone().requires_grad_()
        with record_pass(module, list(layers), rules=False) as recording:
            outputs = compute_outputs(pixels).flatten().float()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(len(outputs), generator=generator, device="cpu", dtype=torch.float32)
        names, tensors = list(recording.activations), list(recording.activations.values())
        try:
            gradients = compute_gradients((outputs * weights.to(outputs.device)).sum(), tensors, retain_graph=False)
        except MethodError:  # the outputs depend on none of them
            gradients = tuple(torch.zeros_like(tensor) for tensor in tensors)
    activations = {name: tensor.detach() for name, tensor in recording.activations.items()}
    return activations, dict(zip(names, gradients, strict=True))
