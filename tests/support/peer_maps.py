"""Maps of pytorch-grad-cam, and the comparison of a map with that of another library or a formula."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from vizlib import Model


def assert_same_map(heat: torch.Tensor, expected: Any, share: float = 1e-4) -> None:
    """Assert that the largest difference is below a share of the range of the map."""
    expected = torch.as_tensor(expected)
    assert heat.shape == expected.shape
    spread = (expected.max() - expected.min()).item()
    assert spread > 0
    assert (heat - expected).abs().max().item() < share * spread


def pytorch_grad_cam_map(
    method: type[BaseCAM], model: Model, layer: str, image: torch.Tensor, target: int, reshape: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the map of pytorch-grad-cam before it is clipped at 0, upsampled and rescaled to 0 to 1, and after."""
    module = copy.deepcopy(model.module)  # it leaves .grad on every parameter
    captured = {}

    class Peer(method):
        def get_cam_image(self, *args, **kwargs):
            captured["map"] = super().get_cam_image(*args, **kwargs)
            return captured["map"]

    with Peer(model=module, target_layers=[module.get_submodule(layer)], reshape_transform=reshape) as peer:
        targets: Any = [ClassifierOutputTarget(target)]  # the annotation of pytorch-grad-cam is a list of modules
        rescaled = peer(input_tensor=image, targets=targets)
    return captured["map"][0], rescaled[0]
