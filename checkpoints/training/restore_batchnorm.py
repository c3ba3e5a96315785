"""Give a network back the batch statistics that were folded into its weights, without changing what it answers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def restore_batch_statistics(model: nn.Module, photos: Iterable[Tensor]) -> nn.Module:
    """Let every BatchNorm know the mean and variance of what it is given on these photos, "n 3 h w" each.

    Published weights are sometimes folded: every running mean 0 and variance 1, the scale inside the other weights.
    Such a network answers rightly, but it cannot be trained on: in training mode its signals are normalised as they
    never were, and without normalisation an ordinary learning rate tears it apart. Its scale and shift are changed by
    as much as the statistics, so in evaluation mode it answers as before.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {layer: torch.zeros(3, layer.num_features, dtype=torch.float64) for layer in layers}

    def count(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)  # channels × all places of all photos
        number = torch.full_like(values[:, 0], values.shape[1])
        sums[layer] += torch.stack([number, values.sum(1), values.square().sum(1)]).cpu()

    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
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
        number, total, squares = sums[layer].to(layer.running_mean.device)
        mean = total / number
        variance = squares / number - mean.square()
        old = (layer.running_var + layer.eps).double().rsqrt() * layer.weight  # y = old * (x - running mean) + bias
        layer.bias.copy_(layer.bias + old * (mean - layer.running_mean))
        layer.weight.copy_(old * (variance + layer.eps).sqrt())
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return model
