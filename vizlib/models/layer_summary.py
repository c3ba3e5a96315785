"""The layers of a network: names, classes, output shapes, parameters and FLOPs, from one pass over a blank input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from vizlib.capture import count_flops, record_pass
from vizlib.models.families.layouts import Size


@dataclass(frozen=True)
class Layer:
    """One row of the layer summary: a module of the network.

    Attributes:
        name: PyTorch's dotted name.
        class_name: Name of the module's class.
        shape: Shape of its output without the batch axis; empty if it returns no tensor or did not run.
        num_parameters: Number of parameters, its children's included.
        flops: Floating-point operations for one photo, its children's included; a multiply-add counts as two.
        runs: How many outputs it computes for one photo: 2 if it runs twice, or once on two views stacked in a batch.
    """

    name: str
    class_name: str
    shape: tuple[int, ...]
    num_parameters: int
    flops: int
    runs: int = 1

    @property
    def depth(self) -> int:
        """Depth of the layer in the module tree: 1 for a direct child of the network."""
        return self.name.count(".") + 1


@dataclass(frozen=True)
class LayerSummary:
    """What one pass over a blank image tells of the layers of a network.

    Attributes:
        layers: Every layer, in registration order.
        attention_layers: Names of those that compute softmax attention, in the order they run.
        running_order: Names of all that run, in the order in which they finish: a container after its children.
        num_relus: How many ReLUs run, those called as functions included.
    """

    layers: tuple[Layer, ...]
    attention_layers: tuple[str, ...]
    running_order: tuple[str, ...]
    num_relus: int


def summarise_layers(module: nn.Module, size: Size) -> LayerSummary:
    """Return the summary of a network's layers, from one pass over a blank image.

    Args:
        module: Network in evaluation mode.
        size: Height and width of its input in pixels.
    """
    parameter = next(module.parameters(), torch.zeros((), dtype=torch.float32, device="cpu"))
    modules = [(name, part) for name, part in module.named_modules() if name]
    with torch.inference_mode(False), torch.no_grad():  # in inference mode the FLOP counter misses convolutions
        image = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
        with count_flops(module) as flops, record_pass(module, attention=True, shapes=True) as recording:
            module(image)
    layers = tuple(
        Layer(
            name,
            type(part).__name__,
            recording.shapes.get(name, ()),
            sum(p.numel() for p in part.parameters()),
            flops[name],
            recording.runs.get(name, 0),
        )
        for name, part in modules
    )
    order = tuple(name for name in recording.shapes if name)
    return LayerSummary(layers, tuple(recording.attention), order, recording.num_relus)


def format_layer_table(layers: Iterable[Layer]) -> str:
    """Return the layer summary as a text table, one layer per line, indented by depth."""
    lines = [f"{'layer':<44}{'class':<28}{'output':<18}{'parameters':>12}{'MFLOPs':>10}"]
    for layer in layers:
        name = "  " * (layer.depth - 1) + layer.name
        shape = " × ".join(map(str, layer.shape))
        lines.append(
            f"{name:<44}{layer.class_name:<28}{shape:<18}{layer.num_parameters:>12,}{layer.flops / 1e6:>10,.1f}"
        )
    return "\n".join(lines)
