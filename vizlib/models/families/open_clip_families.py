"""Rows of the table of model families: image towers of open_clip, which is not imported here."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from vizlib.models.families.family import Family, is_class_of
from vizlib.models.families.layouts import Size, TokenLayout


def _is_open_clip_vit(module) -> bool:
    """Return whether a network belongs to open_clip's ViT family."""
    return is_class_of(module, "open_clip", ("VisionTransformer",)) and getattr(
        module.transformer, "batch_first", False
    )


def _open_clip_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of an image tower of open_clip's ViT family: its blocks."""
    return tuple(f"transformer.resblocks.{i}" for i in range(len(module.transformer.resblocks)))


def _open_clip_vit_reads_class(module) -> bool:
    """Return whether an image tower of open_clip's ViT family returns the class token of its last block only."""
    return module.attn_pool is None and module.pool_type == "tok"


def _open_clip_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of an image tower of open_clip's ViT family."""
    rows, columns = (side // patch for side, patch in zip(size, module.patch_size, strict=True))
    return TokenLayout(("class",), (rows, columns), (0,) if _open_clip_vit_reads_class(module) else ())


def _open_clip_vit_cam_layer(module) -> str:
    """Return the default layer for class activation maps of open_clip's ViT family."""
    return _open_clip_vit_stages(module)[-2:][0 if _open_clip_vit_reads_class(module) else -1]


def _open_clip_vit_normed_layer(module) -> str:
    """Return the layer normalisation after the default layer of open_clip's ViT family."""
    if _open_clip_vit_reads_class(module):
        return f"{_open_clip_vit_stages(module)[-1]}.ln_1"
    if module.attn_pool is not None:
        return "attn_pool.ln_k"
    return _open_clip_vit_cam_layer(module) if module.final_ln_after_pool else "ln_post"


def _open_clip_vit_position(module) -> tuple[Tensor, Size]:
    """Return the position embedding of the patches, and its grid, of open_clip's ViT family."""
    return module.positional_embedding[1:].detach(), module.grid_size


def _open_clip_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the outputs that the head of an image tower of open_clip's ViT family gives each token."""
    return module.ln_post(tokens) @ module.proj


_OPEN_CLIP_VIT = Family(
    name="ViT (open_clip)",
    matches=lambda module: _is_open_clip_vit(module) and module.attn_pool is None,
    stages=_open_clip_vit_stages,
    cam_layer=_open_clip_vit_cam_layer,
    normalised_cam_layer=_open_clip_vit_normed_layer,
    first_convolution=lambda module: "conv1",
    tokens=_open_clip_vit_tokens,
    position_embedding=_open_clip_vit_position,
    classify_tokens=_open_clip_vit_classify,
)

OPEN_CLIP_FAMILIES = (
    _OPEN_CLIP_VIT,
    replace(
        _OPEN_CLIP_VIT, name="ViT with attention pooling (open_clip)", matches=_is_open_clip_vit, classify_tokens=None
    ),
)
