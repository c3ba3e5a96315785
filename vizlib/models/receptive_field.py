"""Receptive fields: which part of the photo one place of a layer can see, and which part it really goes by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vizlib.capture import record_pass
from vizlib.capture.receptive_field_tracer import ReceptiveField, ReceptiveFieldTracer
from vizlib.core.errors import ModelError
from vizlib.models.model import Model


def receptive_field(model: Model, layer: str) -> ReceptiveField:
    """Which pixels one place of a layer can depend on at all, followed through every operation before it.

    Padding belongs to it: the field of a place near the edge reaches beyond the input. After attention or a mean over
    all places it is the whole input, and its size is infinity.

    Raises: ModelError for a layer that is not there, has no places, or lies behind something that cannot be followed.

    >>> receptive_field(load("resnet18-imagenette"), "layer1").size  # doctest: +SKIP
    (43.0, 43.0)
    """
    found = _followed(model, [layer])[layer]
    if isinstance(found, ModelError):
        raise found
    return found


def receptive_fields(model: Model, layers: Sequence[str]) -> dict[str, ReceptiveField]:
    """The same of several layers, from one pass, up to the first whose field is not known; none if one does not run."""
    try:
        every = _followed(model, layers)
    except ModelError:
        return {}
    known: dict[str, ReceptiveField] = {}
    for layer, field in every.items():
        if isinstance(field, ModelError):
            break
        known[layer] = field
    return known


def _followed(model: Model, layers: Sequence[str]) -> dict[str, ReceptiveField | ModelError]:
    module, image = model.eval_module(), model.reference_tensor().new_zeros(1, 3, *model.preprocessing.input_size)
    with (
        model.translate_errors(),
        torch.inference_mode(False),
        torch.no_grad(),
        ReceptiveFieldTracer(image) as follower,
        record_pass(module, layers) as seen,
    ):
        module(image)
    return {layer: _field_of(model, layer, seen.activations[layer], follower) for layer in layers}


def _field_of(model: Model, layer: str, output: Tensor, follower: ReceptiveFieldTracer) -> ReceptiveField | ModelError:
    if model.spatial_map(output) is None:
        return ModelError(f"the output of {layer} has shape {tuple(output.shape[1:])}, with no places in it")
    found = follower.traces.get(output)
    if found is None:
        return ModelError(f"the receptive field of {layer} is not known: nothing of the photo reaches it")
    if found.unsupported_operation:
        return ModelError(
            f"the receptive field of {layer} is not known: {found.unsupported_operation} cannot be followed"
        )
    return found.field
