"""Theoretical receptive fields of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vizlib.capture import record_pass
from vizlib.capture.receptive_field_tracer import ReceptiveField, ReceptiveFieldTracer
from vizlib.core.errors import ModelError
from vizlib.models.model import Model


def receptive_field(model: Model, layer: str) -> ReceptiveField:
    """Return the theoretical receptive field of one position of a layer: the pixels that it can depend on.

    The field is traced through every operation before the layer. It includes padding, so the field of a position near
    the border extends beyond the input. After attention or global pooling its size is infinite.

    Args:
        model: Model of the layer.
        layer: PyTorch's dotted name of the layer.

    Raises:
        ModelError: If the layer does not exist, has no spatial positions or follows an operation that cannot be traced.

    Example:
        >>> import vizlib
        >>> vizlib.receptive_field(vizlib.load("resnet18-imagenette"), "layer1").size
        (43.0, 43.0)
    """
    field = _compute_fields(model, [layer])[layer]
    if isinstance(field, ModelError):
        raise field
    return field


def receptive_fields(model: Model, layers: Sequence[str]) -> dict[str, ReceptiveField]:
    """Return the theoretical receptive fields of several layers from one pass, up to the first without a known field.

    Empty if a layer does not exist or does not run.
    """
    try:
        traced = _compute_fields(model, layers)
    except ModelError:
        return {}
    fields: dict[str, ReceptiveField] = {}
    for layer, field in traced.items():
        if isinstance(field, ModelError):
            break
        fields[layer] = field
    return fields


def _compute_fields(model: Model, layers: Sequence[str]) -> dict[str, ReceptiveField | ModelError]:
    """Return the theoretical receptive field of each layer, or the error that says why it is not known."""
    module, image = model.eval_module(), model.reference_tensor().new_zeros(1, 3, *model.preprocessing.input_size)
    with (
        model.network_context(),
        torch.inference_mode(False),
        torch.no_grad(),
        ReceptiveFieldTracer(image) as tracer,
        record_pass(module, layers) as recording,
    ):
        module(image)
    return {layer: _read_field(model, layer, recording.activations[layer], tracer) for layer in layers}


def _read_field(model: Model, layer: str, output: Tensor, tracer: ReceptiveFieldTracer) -> ReceptiveField | ModelError:
    """Return the theoretical receptive field of one layer, or the error that says why it is not known."""
    if model.spatial_map(output) is None:
        return ModelError(f"the output of {layer} has shape {tuple(output.shape[1:])}, without spatial positions")
    trace = tracer.traces.get(output)
    if trace is None:
        return ModelError(f"the receptive field of {layer} is not known: its output does not depend on the photo")
    if trace.unsupported_operation:
        return ModelError(
            f"the receptive field of {layer} is not known: {trace.unsupported_operation} cannot be traced"
        )
    return trace.field
