"""Restore the statistics of BatchNorm layers that were folded into the weights, without changing the outputs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def restore_batch_statistics(model: nn.Module, photos: Iterable[Tensor]) -> nn.Module:
    """Set the running statistics of every BatchNorm layer to those of its input on the given photos, in place.

    Published weights are sometimes folded: every running mean is 0, every variance 1, and the scale is contained in the
    other weights. Such a network predicts correctly but cannot be fine-tuned: in training mode its activations are
    normalised as they never were in training, and without normalisation an ordinary learning rate diverges. Scale and
    shift of each layer are adapted to the new statistics, so that the outputs in evaluation mode do not change.

    Args:
        model: A network with `nn.BatchNorm2d` layers.
        photos: Batches of normalised photos, "n 3 h w".

    Returns:
        The same network.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {layer: torch.zeros(3, layer.num_features, dtype=torch.float64) for layer in layers}

    def accumulate(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)  # channels × positions of all photos
        count = torch.full_like(values[:, 0], values.shape[1])
        sums[layer] += torch.stack([count, values.sum(1), values.square().sum(1)]).cpu()

    hooks = [layer.register_forward_pre_hook(accumulate) for layer in layers]
    was_training = model.training
    try:
        model.eval()
        for images in photos:
            model(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    for layer in layers:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        count, total, squares = sums[layer].to(layer.running_mean.device)
        mean = total / count
        variance = squares / count - mean.square()
        old = (layer.running_var + layer.eps).double().rsqrt() * layer.weight  # y = old * (x - running mean) + bias
        layer.bias.copy_(layer.bias + old * (mean - layer.running_mean))
        layer.weight.copy_(old * (variance + layer.eps).sqrt())
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return model
