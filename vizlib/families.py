"""The model families vizlib knows its way around in: one table, one row each.

A family tells where a network keeps its stages, its first kernels and its tokens. To add one, add a row to `FAMILIES`;
everything else (which methods fit, what the dashboard offers) is read from here. A network of no known family still
gets every method that needs no more than its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import timm.models.resnet
import timm.models.vision_transformer
import torchvision.models.resnet
import torchvision.models.vision_transformer
from jaxtyping import Float
from torch import Tensor, nn

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Tokens:
    """What a transformer's tokens are: a few with a name, then the photo's patches row by row."""

    names: tuple[str, ...]  # the prefix tokens: "class", "distillation", "register 1", ...
    grid: Size  # rows, columns of patches
    read: tuple[int, ...]  # tokens the classifier reads; empty when it reads all patches

    @property
    def prefix(self) -> int:
        """How many tokens come before the first patch."""
        return len(self.names)

    @property
    def count(self) -> int:
        """How many tokens there are in all."""
        return self.prefix + self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Family:
    """How to find one's way in the networks of one kind."""

    name: str
    recognises: Callable[[nn.Module], bool]
    stages: Callable[[nn.Module], tuple[str, ...]]  # layers whose output is a picture, shallow to deep
    cam_layer: Callable[[nn.Module], str]  # the deepest layer whose places still carry gradient
    first_kernels: Callable[[nn.Module], str]  # the convolution that reads the pixels
    tokens: Callable[[nn.Module, Size], Tokens] | None = None
    position_embedding: Callable[[nn.Module], tuple[Tensor, Size] | None] = lambda module: None
    classify: Callable[[nn.Module, Tensor], Tensor] | None = None  # tokens "n width" -> the logits it gives each


def _resnet_stages(module: nn.Module) -> tuple[str, ...]:
    return ("layer1", "layer2", "layer3", "layer4")


def _first_convolution(module: nn.Module, within: str) -> str:
    """Deep stems and hybrid patch embeddings keep several convolutions where others have one; pixels meet the first."""
    parts = module.get_submodule(within).named_modules(prefix=within)
    return next(name for name, part in parts if isinstance(part, nn.Conv2d))


def _timm_vit_stages(module) -> tuple[str, ...]:
    return tuple(f"blocks.{i}" for i in range(len(module.blocks)))


def _timm_vit_tokens(module, size: Size) -> Tokens:
    names = ("class",) if module.cls_token is not None else ()
    if hasattr(module, "dist_token"):
        names += ("distillation",)
    names += tuple(f"register {i + 1}" for i in range(module.num_prefix_tokens - len(names)))
    rows, columns = module.patch_embed.dynamic_feat_size(size)
    read = [i for i, name in enumerate(names) if name in ("class", "distillation")]
    return Tokens(names, (rows, columns), tuple(read) if module.global_pool in ("token", "") else ())


def _timm_vit_cam_layer(module) -> str:
    # A classifier that reads only the class token leaves the last block's patch tokens with a gradient of exactly 0.
    last = len(module.blocks) - 1
    return f"blocks.{last - 1 if module.global_pool == 'token' and last else last}"


def _timm_vit_classify(module, tokens: Tensor) -> Tensor:
    tokens = module.head_drop(module.fc_norm(module.norm(tokens)))
    if hasattr(module, "head_dist"):
        return (module.head(tokens) + module.head_dist(tokens)) / 2
    return module.head(tokens)


def _timm_vit_position(module) -> tuple[Tensor, Size] | None:
    if module.pos_embed is None:
        return None
    rows, columns = module.patch_embed.grid_size
    return module.pos_embed[0, -rows * columns :].detach(), (rows, columns)


def _torchvision_vit_stages(module) -> tuple[str, ...]:
    return tuple(f"encoder.layers.{name}" for name, _ in module.encoder.layers.named_children())


def _torchvision_vit_tokens(module, size: Size) -> Tokens:
    return Tokens(("class",), (size[0] // module.patch_size, size[1] // module.patch_size), (0,))


def _torchvision_vit_classify(module, tokens: Tensor) -> Tensor:
    return module.heads(module.encoder.ln(tokens))


def _torchvision_vit_position(module) -> tuple[Tensor, Size]:
    side = module.image_size // module.patch_size
    return module.encoder.pos_embedding[0, 1:].detach(), (side, side)


FAMILIES = (
    Family(
        name="ResNet",
        recognises=lambda module: isinstance(module, (timm.models.resnet.ResNet, torchvision.models.resnet.ResNet)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_kernels=lambda module: _first_convolution(module, "conv1"),
    ),
    Family(
        name="ViT",
        recognises=lambda module: isinstance(module, timm.models.vision_transformer.VisionTransformer),
        stages=_timm_vit_stages,
        cam_layer=_timm_vit_cam_layer,
        first_kernels=lambda module: _first_convolution(module, "patch_embed"),
        tokens=_timm_vit_tokens,
        position_embedding=_timm_vit_position,
        classify=_timm_vit_classify,
    ),
    Family(
        name="ViT (torchvision)",
        recognises=lambda module: isinstance(module, torchvision.models.vision_transformer.VisionTransformer),
        stages=_torchvision_vit_stages,
        cam_layer=lambda module: _torchvision_vit_stages(module)[-2:][0],  # its classifier reads the class token only
        first_kernels=lambda module: "conv_proj",
        tokens=_torchvision_vit_tokens,
        position_embedding=_torchvision_vit_position,
        classify=_torchvision_vit_classify,
    ),
)


def family_of(module: nn.Module) -> Family | None:
    """The row of `FAMILIES` that knows this network, if any."""
    return next((family for family in FAMILIES if family.recognises(module)), None)


def as_picture(activation: Tensor, tokens: Tokens | None) -> Float[Tensor, "channels rows columns"] | None:
    """A layer's output laid out as pictures, one a channel; patch tokens go back to their places in the photo.

    `None` for an output that has no places, such as pooled features or logits.
    """
    if activation.ndim == 4:
        # A transformer's queries and keys have four axes too; a picture of it has a whole number of places a patch.
        (rows, over), (columns, beside) = map(divmod, activation.shape[-2:], tokens.grid if tokens else (1, 1))
        return activation[0] if not over and not beside and (tokens is None or rows == columns > 0) else None
    if activation.ndim == 3 and tokens is not None:
        rows, columns = tokens.grid
        extra = activation.shape[1] - rows * columns
        if extra in (0, tokens.prefix):  # the patch embedding's output has no prefix tokens yet
            return activation[0, extra:].T.unflatten(1, (rows, columns))  # (tokens, c) -> (c, rows, columns)
    return None
