"""Restored BatchNorm statistics: the same outputs, and similar ones in training mode."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn


@pytest.fixture
def folded() -> nn.Module:
    """A network that was folded: running mean 0 and variance 1 everywhere, its scale in the other weights."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=5).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 2.0)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.Conv2d):
            module.weight.data *= 3.0
    return network


def test_restored_network_keeps_outputs_and_has_the_statistics(folded):
    from checkpoints.training.restore_batchnorm import restore_batch_statistics

    photos = [torch.randn(8, 3, 64, 64) for _ in range(3)]
    inputs_by_layer = {name: [] for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, batches in inputs_by_layer.items():
        folded.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, batches=batches: batches.append(inputs[0])
        )
    with torch.no_grad():
        before = torch.cat([folded(images) for images in photos])
        whole = {name: torch.cat(batches) for name, batches in inputs_by_layer.items()}
        restore_batch_statistics(folded, photos)
        after = torch.cat([folded(images) for images in photos])
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-3 * before.abs().max().item())
    assert inputs_by_layer
    for name, values in whole.items():
        layer = folded.get_submodule(name)
        assert torch.allclose(layer.running_mean, values.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
        assert torch.allclose(layer.running_var, values.var((0, 2, 3), unbiased=False), rtol=1e-3, atol=1e-4)


def test_restored_network_gives_similar_outputs_in_training_mode(folded):
    from checkpoints.training.restore_batchnorm import restore_batch_statistics

    photos = torch.randn(64, 3, 64, 64)
    with torch.no_grad():
        expected = folded(photos)
        other = copy.deepcopy(folded).train()(photos)
        result = restore_batch_statistics(folded, [photos]).train()(photos)
    assert torch.allclose(result, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())
    assert (other - expected).abs().max() > 0.3 * expected.abs().max()


def test_restoring_leaves_no_hook_and_keeps_the_mode(folded):
    from checkpoints.training.restore_batchnorm import restore_batch_statistics

    folded.train()
    restore_batch_statistics(folded, [torch.randn(4, 3, 64, 64)])
    assert all(module.training for module in folded.modules())
    assert not any(module._forward_pre_hooks for module in folded.modules())
