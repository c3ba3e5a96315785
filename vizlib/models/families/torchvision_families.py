"""Rows of the table of model families: transformers of torchvision."""

from __future__ import annotations

from dataclasses import replace

import torchvision.models.maxvit
import torchvision.models.swin_transformer
import torchvision.models.vision_transformer
from torch import Tensor

from vizlib.models.families.family import Family, find_convolution, merge_grids
from vizlib.models.families.layouts import Size, StageLayout, TokenLayout, WindowLayout


def _torchvision_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's ViT family: its encoder layers."""
    return tuple(f"encoder.layers.{name}" for name, _ in module.encoder.layers.named_children())


def _torchvision_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of torchvision's ViT family."""
    return TokenLayout(("class",), (size[0] // module.patch_size, size[1] // module.patch_size), (0,))


def _torchvision_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the logits that the classifier of a network of torchvision's ViT family gives each token."""
    return module.heads(module.encoder.ln(tokens))


def _torchvision_vit_position(module) -> tuple[Tensor, Size]:
    """Return the position embedding of the patches, and its grid, of a network of torchvision's ViT family."""
    side = module.image_size // module.patch_size
    return module.encoder.pos_embedding[0, 1:].detach(), (side, side)


def _torchvision_swin_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's Swin family."""
    return tuple(f"features.{i}" for i in range(1, len(module.features), 2))  # even indices embed or merge patches


def _torchvision_swin_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of a network of torchvision's Swin family."""
    rows, columns = (side // stride for side, stride in zip(size, module.features[0][0].stride, strict=True))
    return merge_grids((rows, columns), len(_torchvision_swin_stages(module)))


def _torchvision_swin_windows(module, size: Size) -> dict[str, WindowLayout]:
    """Return the windows of each attention layer of a network of torchvision's Swin family."""
    return {
        f"{stage}.{j}.attn": _fit_shift(WindowLayout(grid, tuple(attn.window_size), tuple(attn.shift_size), True))
        for stage, grid in zip(
            _torchvision_swin_stages(module), _torchvision_swin_layout(module, size).grids, strict=True
        )
        for j, attn in enumerate(block.attn for block in module.get_submodule(stage).children())
    }


def _fit_shift(layout: WindowLayout) -> WindowLayout:
    """Return the windows that torchvision's Swin uses: not shifted along a side that a single window covers."""
    sides = zip(layout.grid, layout.window, layout.shift, strict=True)
    rows, columns = (0 if side <= window else shift for side, window, shift in sides)
    return replace(layout, shift=(rows, columns))


def _torchvision_maxvit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of torchvision's MaxViT family: its blocks."""
    return tuple(f"blocks.{i}" for i in range(len(module.blocks)))


def _torchvision_maxvit_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of torchvision's MaxViT family, each of which halves the sides, rounded up."""
    grids = [tuple((side + 1) // 2 for side in size)]
    for _ in module.blocks:
        grids.append(tuple((side + 1) // 2 for side in grids[-1]))
    return StageLayout("channels first", tuple((rows, columns) for rows, columns in grids))


TORCHVISION_FAMILIES = (
    Family(
        name="ViT (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.vision_transformer.VisionTransformer),
        stages=_torchvision_vit_stages,
        cam_layer=lambda module: _torchvision_vit_stages(module)[-2:][0],  # the classifier reads only the class token
        normalised_cam_layer=lambda module: f"{_torchvision_vit_stages(module)[-1]}.ln_1",
        first_convolution=lambda module: "conv_proj",
        tokens=_torchvision_vit_tokens,
        position_embedding=_torchvision_vit_position,
        classify_tokens=_torchvision_vit_classify,
    ),
    Family(
        name="Swin (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.swin_transformer.SwinTransformer),
        stages=_torchvision_swin_stages,
        cam_layer=lambda module: _torchvision_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: find_convolution(module, "features"),
        stage_layout=_torchvision_swin_layout,
        windows=_torchvision_swin_windows,
    ),
    Family(
        name="MaxViT (torchvision)",
        matches=lambda module: isinstance(module, torchvision.models.maxvit.MaxVit),
        stages=_torchvision_maxvit_stages,
        cam_layer=lambda module: _torchvision_maxvit_stages(module)[-1],
        first_convolution=lambda module: find_convolution(module, "stem"),
        stage_layout=_torchvision_maxvit_layout,
    ),
)
