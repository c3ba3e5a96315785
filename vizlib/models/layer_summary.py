"""What a network is made of: names, shapes, parameters and FLOPs, read off one pass over an empty photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from vizlib.capture import count_flops, record_pass
from vizlib.models.families import Size


@dataclass(frozen=True)
class Layer:
    """One module of the network."""

    name: str  # PyTorch's dotted name
    class_name: str  # its class
    shape: tuple[int, ...]  # of its output, without the batch axis; empty if it is no tensor or did not run
    num_parameters: int  # its own and its parts'
    flops: int  # of one photo, its own and its parts'; a multiplication and an addition are two

    @property
    def depth(self) -> int:
        """How deep it lies in the tree: 1 for the network's direct parts."""
        return self.name.count(".") + 1


def summarise_layers(module: nn.Module, size: Size) -> tuple[tuple[Layer, ...], tuple[str, ...], int]:
    """The layers in the order they stand, the names of those that compute attention, and the number of outputs."""
    parameter = next(module.parameters(), torch.zeros(()))
    modules = [(name, part) for name, part in module.named_modules() if name]
    with torch.inference_mode(False), torch.no_grad():  # inference mode hides convolutions from the counting
        image = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
        with count_flops(module) as flops, record_pass(module, attention=True, shapes=True) as seen:
            output = module(image)
    layers = tuple(
        Layer(
            name,
            type(part).__name__,
            seen.shapes.get(name, ()),
            sum(p.numel() for p in part.parameters()),
            flops[name],
        )
        for name, part in modules
    )
    return layers, tuple(seen.attention), getattr(output, "logits", output).shape[-1]


def format_layer_table(layers: Iterable[Layer]) -> str:
    """The layers as text, one a line, indented as they nest."""
    lines = [f"{'layer':<44}{'kind':<28}{'output':<18}{'parameters':>12}{'MFLOPs':>10}"]
    for layer in layers:
        name = "  " * (layer.depth - 1) + layer.name
        shape = " × ".join(map(str, layer.shape))
        lines.append(
            f"{name:<44}{layer.class_name:<28}{shape:<18}{layer.num_parameters:>12,}{layer.flops / 1e6:>10,.1f}"
        )
    return "\n".join(lines)
