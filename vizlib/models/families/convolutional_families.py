"""Rows of the table of model families: ResNets, of all libraries."""

from __future__ import annotations

import timm.models.resnet
import torchvision.models.resnet
from torch import nn

from vizlib.models.families.family import Family, find_convolution, is_class_of
from vizlib.models.families.layouts import Size, TokenLayout


def _resnet_stages(module: nn.Module) -> tuple[str, ...]:
    """Return the stages of a network of the ResNet family."""
    return ("layer1", "layer2", "layer3", "layer4")


def _pooled_tokens(module, size: Size) -> TokenLayout:
    """Return the tokens of the attention pooling of open_clip's ResNets: their mean, then the last stage."""
    rows, columns = (side // 32 for side in size)
    return TokenLayout(("mean",), (rows, columns), (0,))


CONVOLUTIONAL_FAMILIES = (
    Family(
        name="ResNet",
        matches=lambda module: isinstance(module, (timm.models.resnet.ResNet, torchvision.models.resnet.ResNet)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_convolution=lambda module: find_convolution(module, "conv1"),
    ),
    Family(
        name="ResNet (open_clip)",
        matches=lambda module: is_class_of(module, "open_clip", ("ModifiedResNet",)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_convolution=lambda module: "conv1",
        tokens=_pooled_tokens,
    ),
)
