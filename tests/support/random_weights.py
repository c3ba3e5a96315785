"""Random weights for small transformers whose attention is far from uniform."""

from __future__ import annotations

from typing import Any

import torch


def randomise_weights(module: Any, seed: int = 0) -> Any:
    """Return the network in float64, with random weights so large that its attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # norms and biases
                parameter.copy_(0.3 * drawn + (1.0 if name.endswith("weight") else 0.0))
            else:
                fan_in = parameter[0].numel() if parameter.ndim and parameter.shape[0] > 1 else 1
                parameter.copy_(1.5 * drawn / fan_in**0.5)
    return module.double().eval()
