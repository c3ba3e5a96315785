"""The model families vizlib knows its way around in: one table, one row each.

A family tells where a network keeps its stages, its first kernels and its tokens. To add one, add a row to `FAMILIES`;
everything else (which methods fit, what the dashboard offers) is read from here. A network of no known family still
gets every method that needs no more than its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import timm.models.resnet
import timm.models.swin_transformer
import timm.models.swin_transformer_v2
import timm.models.vision_transformer
import torchvision.models.resnet
import torchvision.models.swin_transformer
import torchvision.models.vision_transformer
from jaxtyping import Float
from torch import Tensor, nn

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class TokenLayout:
    """What a transformer's tokens are: a few with a name, then the photo's patches row by row."""

    names: tuple[str, ...]  # the prefix tokens: "class", "distillation", "register 1", ...
    grid: Size  # rows, columns of patches
    classifier_tokens: tuple[int, ...]  # tokens the classifier reads; empty when it reads all patches

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens come before the first patch."""
        return len(self.names)

    @property
    def num_tokens(self) -> int:
        """How many tokens there are in all."""
        return self.num_prefix_tokens + self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Family:
    """How to find one's way in the networks of one kind."""

    name: str
    matches: Callable[[nn.Module], bool]
    stages: Callable[[nn.Module], tuple[str, ...]]  # layers whose output is a picture, shallow to deep
    cam_layer: Callable[[nn.Module], str]  # the deepest layer whose places still carry gradient
    first_convolution: Callable[[nn.Module], str]  # the convolution that reads the pixels
    # Where a layer normalisation follows `cam_layer`, its output: it takes the length out of each place, so before it
    # activation times gradient adds up to 0 over the channels, and rounding is all that is left.
    normalised_cam_layer: Callable[[nn.Module], str] | None = None
    tokens: Callable[[nn.Module, Size], TokenLayout] | None = None
    position_embedding: Callable[[nn.Module], tuple[Tensor, Size] | None] = lambda module: None
    classify_tokens: Callable[[nn.Module, Tensor], Tensor] | None = None  # tokens "n width" -> the logits it gives each
    stage_grids: Callable[[nn.Module, Size], Collection[Size]] | None = (
        None  # sizes of its stages, if channels come last
    )


def _resnet_stages(module: nn.Module) -> tuple[str, ...]:
    return ("layer1", "layer2", "layer3", "layer4")


def _first_convolution(module: nn.Module, within: str) -> str:
    """Deep stems and hybrid patch embeddings keep several convolutions where others have one; pixels meet the first."""
    parts = module.get_submodule(within).named_modules(prefix=within)
    return next(name for name, part in parts if isinstance(part, nn.Conv2d))


def _timm_vit_stages(module) -> tuple[str, ...]:
    return tuple(f"blocks.{i}" for i in range(len(module.blocks)))


def _timm_vit_tokens(module, size: Size) -> TokenLayout:
    names = ("class",) if module.cls_token is not None else ()
    if hasattr(module, "dist_token"):
        names += ("distillation",)
    names += tuple(f"register {i + 1}" for i in range(module.num_prefix_tokens - len(names)))
    rows, columns = module.patch_embed.dynamic_feat_size(size)
    read = [i for i, name in enumerate(names) if name in ("class", "distillation")]
    return TokenLayout(names, (rows, columns), tuple(read) if module.global_pool in ("token", "") else ())


def _timm_vit_cam_layer(module) -> str:
    # A classifier that reads only the class token leaves the last block's patch tokens with a gradient of exactly 0.
    last = len(module.blocks) - 1
    return f"blocks.{last - 1 if module.global_pool == 'token' and last else last}"


def _timm_vit_normed_layer(module) -> str:
    if module.global_pool == "token":
        last = len(module.blocks) - 1
        first_in_block = isinstance(module.blocks[last], timm.models.vision_transformer.Block)  # others norm elsewhere
        return f"blocks.{last}.norm1" if first_in_block else _timm_vit_cam_layer(module)
    return _timm_vit_cam_layer(module) if isinstance(module.norm, nn.Identity) else "norm"


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


def _torchvision_vit_tokens(module, size: Size) -> TokenLayout:
    return TokenLayout(("class",), (size[0] // module.patch_size, size[1] // module.patch_size), (0,))


def _torchvision_vit_classify(module, tokens: Tensor) -> Tensor:
    return module.heads(module.encoder.ln(tokens))


def _torchvision_vit_position(module) -> tuple[Tensor, Size]:
    side = module.image_size // module.patch_size
    return module.encoder.pos_embedding[0, 1:].detach(), (side, side)


def _timm_swin_stages(module) -> tuple[str, ...]:
    return tuple(f"layers.{i}" for i in range(len(module.layers)))


def _timm_swin_grids(module, size: Size) -> list[Size]:
    return _merged(module.patch_embed.dynamic_feat_size(size), len(_timm_swin_stages(module)))


def _torchvision_swin_stages(module) -> tuple[str, ...]:
    return tuple(f"features.{i}" for i in range(1, len(module.features), 2))  # before each, patches are made or merged


def _torchvision_swin_grids(module, size: Size) -> list[Size]:
    rows, columns = (side // step for side, step in zip(size, module.features[0][0].stride, strict=True))
    return _merged((rows, columns), len(_torchvision_swin_stages(module)))


def _merged(grid: Size, stages: int) -> list[Size]:
    """The places of each stage, where 2 × 2 patches are merged from one to the next; an odd side is padded."""
    grids = [grid]
    while len(grids) < stages:
        rows, columns = grids[-1]
        grids.append(((rows + 1) // 2, (columns + 1) // 2))
    return grids


FAMILIES = (
    Family(
        name="ResNet",
        matches=lambda module: isinstance(module, (timm.models.resnet.ResNet, torchvision.models.resnet.ResNet)),
        stages=_resnet_stages,
        cam_layer=lambda module: "layer4",
        first_convolution=lambda module: _first_convolution(module, "conv1"),
    ),
    Family(
        name="ViT",
        matches=lambda module: isinstance(module, timm.models.vision_transformer.VisionTransformer),
        stages=_timm_vit_stages,
        cam_layer=_timm_vit_cam_layer,
        normalised_cam_layer=_timm_vit_normed_layer,
        first_convolution=lambda module: _first_convolution(module, "patch_embed"),
        tokens=_timm_vit_tokens,
        position_embedding=_timm_vit_position,
        classify_tokens=_timm_vit_classify,
    ),
    Family(
        name="ViT (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.vision_transformer.VisionTransformer),
        stages=_torchvision_vit_stages,
        cam_layer=lambda module: _torchvision_vit_stages(module)[-2:][0],  # its classifier reads the class token only
        normalised_cam_layer=lambda module: f"{_torchvision_vit_stages(module)[-1]}.ln_1",
        first_convolution=lambda module: "conv_proj",
        tokens=_torchvision_vit_tokens,
        position_embedding=_torchvision_vit_position,
        classify_tokens=_torchvision_vit_classify,
    ),
    Family(
        name="Swin",
        matches=lambda module: isinstance(
            module, (timm.models.swin_transformer.SwinTransformer, timm.models.swin_transformer_v2.SwinTransformerV2)
        ),
        stages=_timm_swin_stages,
        cam_layer=lambda module: _timm_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: _first_convolution(module, "patch_embed"),
        stage_grids=_timm_swin_grids,
    ),
    Family(
        name="Swin (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.swin_transformer.SwinTransformer),
        stages=_torchvision_swin_stages,
        cam_layer=lambda module: _torchvision_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: _first_convolution(module, "features"),
        stage_grids=_torchvision_swin_grids,
    ),
)


def find_family(module: nn.Module) -> Family | None:
    """The row of `FAMILIES` that knows this network, if any."""
    return next((family for family in FAMILIES if family.matches(module)), None)


def to_spatial_map(
    activation: Tensor, tokens: TokenLayout | None, grids: Collection[Size] = ()
) -> Float[Tensor, "channels rows columns"] | None:
    """A layer's output laid out as pictures, one a channel; patch tokens go back to their places in the photo.

    `grids` are a family's whose channels come last. `None` for an output that has no places, such as pooled features or
    logits, or that is cut into windows.
    """
    if activation.ndim == 4 and len(activation) == 1:
        if grids:  # other sizes are attention scores, or windows, of which a small stage has a single one
            if find_channel_axis(activation, grids) == -1:
                return activation[0].movedim(-1, 0)
            return activation[0] if tuple(activation.shape[2:]) in grids else None
        # A transformer's queries and keys have four axes too; a picture of it has a whole number of places a patch.
        (rows, over), (columns, beside) = map(divmod, activation.shape[-2:], tokens.grid if tokens else (1, 1))
        return activation[0] if not over and not beside and (tokens is None or rows == columns > 0) else None
    if activation.ndim == 3 and tokens is not None:
        rows, columns = tokens.grid
        extra = activation.shape[1] - rows * columns
        if extra in (0, tokens.num_prefix_tokens):  # the patch embedding's output has no prefix tokens yet
            return activation[0, extra:].T.unflatten(1, (rows, columns))  # (tokens, c) -> (c, rows, columns)
    return None


def find_channel_axis(activation: Tensor, grids: Collection[Size] = ()) -> int:
    """Along which axis of a layer's output its channels lie.

    Where a shape can be read both ways, as 8 × 8 × 8 can, a family with `grids` has them last.
    """
    return 1 if activation.ndim == 4 and tuple(activation.shape[1:3]) not in grids else -1
