"""Rows of the table of model families: transformers of timm."""

from __future__ import annotations

from dataclasses import replace

import timm.models.beit
import timm.models.eva
import timm.models.fastvit
import timm.models.naflexvit
import timm.models.swin_transformer
import timm.models.swin_transformer_v2
import timm.models.swin_transformer_v2_cr
import timm.models.vision_transformer
import timm.models.vision_transformer_relpos
from torch import Tensor, nn

from vizlib.models.families.family import Family, WindowedNetwork, find_convolution, merge_grids
from vizlib.models.families.layouts import Size, StageLayout, TokenLayout, WindowLayout

# Vision transformers of timm with the parts of its ViT: prefix tokens and patches in `blocks`, then `norm` and a head.
TIMM_VITS = {
    timm.models.vision_transformer.VisionTransformer: "ViT",
    timm.models.eva.Eva: "EVA",
    timm.models.beit.Beit: "BEiT",
    timm.models.vision_transformer_relpos.VisionTransformerRelPos: "ViT with relative positions",
}
TIMM_PRE_NORM_BLOCKS = (  # other blocks normalise elsewhere
    timm.models.vision_transformer.Block,
    timm.models.eva.EvaBlock,
    timm.models.beit.Block,
    timm.models.vision_transformer_relpos.RelPosBlock,
)


def _timm_vit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of timm's ViT family: its blocks."""
    return tuple(f"blocks.{i}" for i in range(len(module.blocks)))


def _timm_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of timm's ViT family."""
    names = ("class",) if module.cls_token is not None else ()
    if hasattr(module, "dist_token"):
        names += ("distillation",)
    names += tuple(f"register {i + 1}" for i in range(module.num_prefix_tokens - len(names)))
    rows, columns = module.patch_embed.dynamic_feat_size(size)
    classifier_tokens = [i for i, name in enumerate(names) if name in ("class", "distillation")]
    return TokenLayout(names, (rows, columns), tuple(classifier_tokens) if module.global_pool in ("token", "") else ())


def _timm_vit_cam_layer(module) -> str:
    """Return the default layer for class activation maps of timm's ViT family."""
    # If the classifier reads only the class token, the gradient of the last block's patch tokens is exactly 0.
    last = len(module.blocks) - 1
    return f"blocks.{last - 1 if module.global_pool == 'token' and last else last}"


def _timm_vit_normed_layer(module) -> str:
    """Return the layer normalisation after the default layer for class activation maps of timm's ViT family."""
    if module.global_pool == "token":
        last = len(module.blocks) - 1
        first_in_block = isinstance(module.blocks[last], TIMM_PRE_NORM_BLOCKS)
        return f"blocks.{last}.norm1" if first_in_block else _timm_vit_cam_layer(module)
    return _timm_vit_cam_layer(module) if isinstance(module.norm, nn.Identity) else "norm"


def _timm_vit_classify(module, tokens: Tensor) -> Tensor:
    """Return the logits that the classifier of a network of timm's ViT family gives each token."""
    tokens = module.head_drop(module.fc_norm(module.norm(tokens)))
    if hasattr(module, "head_dist"):
        return (module.head(tokens) + module.head_dist(tokens)) / 2
    return module.head(tokens)


def _timm_vit_position(module) -> tuple[Tensor, Size] | None:
    """Return the position embedding of the patches, and its grid, of a network of timm's ViT family."""
    if getattr(module, "pos_embed", None) is None:
        return None
    rows, columns = module.patch_embed.grid_size
    return module.pos_embed[0, -rows * columns :].detach(), (rows, columns)


def _naflex_vit_convolution(module) -> str | None:
    """Return the convolution of a network of timm's NaFlexViT family; most embed patches with a linear layer."""
    return "embeds.proj" if isinstance(module.embeds.proj, nn.Conv2d) else None


def _naflex_vit_tokens(module, size: Size) -> TokenLayout:
    """Return the token layout of a network of timm's NaFlexViT family."""
    names = ("class",) if module.has_class_token else ()
    names += tuple(f"register {i + 1}" for i in range(module.num_prefix_tokens - len(names)))
    rows, columns = module.embeds.dynamic_feat_size(size)
    return TokenLayout(names, (rows, columns), (0,) if module.has_class_token and module.global_pool == "token" else ())


def _timm_swin_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of timm's Swin family."""
    return tuple(f"layers.{i}" for i in range(len(module.layers)))


def _timm_swin_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of a network of timm's Swin family."""
    return merge_grids(module.patch_embed.dynamic_feat_size(size), len(_timm_swin_stages(module)))


def _timm_swin_windows(module, size: Size) -> dict[str, WindowLayout]:
    """Return the windows of each attention layer of a network of timm's Swin family."""
    return {
        f"layers.{i}.blocks.{j}.attn": WindowLayout(grid, tuple(block.window_size), tuple(block.shift_size), False)
        for i, grid in enumerate(_timm_swin_layout(module, size).grids)
        for j, block in enumerate(module.layers[i].blocks)
    }


def _timm_swin_cr_windows(module, size: Size) -> dict[str, WindowLayout]:
    """Return the windows of each attention layer of timm's Swin 2 by Christoph Reich."""
    rows, columns = (side // patch for side, patch in zip(size, module.patch_embed.patch_size, strict=True))
    grids = merge_grids((rows, columns), len(module.stages)).grids
    return {
        f"stages.{i}.blocks.{j}.attn": WindowLayout(grid, tuple(block.window_size), tuple(block.shift_size), False)
        for i, grid in enumerate(grids)
        for j, block in enumerate(module.stages[i].blocks)
    }


def _fastvit_stages(module) -> tuple[str, ...]:
    """Return the stages of a network of timm's FastViT family, and the convolution after them."""
    stages = tuple(f"stages.{i}" for i in range(len(module.stages)))
    return stages if isinstance(module.final_conv, nn.Identity) else (*stages, "final_conv")


def _fastvit_layout(module, size: Size) -> StageLayout:
    """Return the layout of the stages of a network of timm's FastViT family."""
    grids = [tuple(-(-side // info["reduction"]) for side in size) for info in module.feature_info]
    return StageLayout("channels first", tuple((rows, columns) for rows, columns in grids))


def _pools_by_attention(module) -> bool:
    """Return whether the classifier of a network of timm's ViT family reads the output of an attention pooling head."""
    return getattr(module, "attn_pool", None) is not None


_TIMM_VIT = Family(
    name="ViT",
    matches=lambda module: isinstance(module, tuple(TIMM_VITS)),
    stages=_timm_vit_stages,
    cam_layer=_timm_vit_cam_layer,
    normalised_cam_layer=_timm_vit_normed_layer,
    first_convolution=lambda module: find_convolution(module, "patch_embed"),
    tokens=_timm_vit_tokens,
    position_embedding=_timm_vit_position,
    classify_tokens=_timm_vit_classify,
)

TIMM_FAMILIES = (
    replace(
        _TIMM_VIT,
        name="ViT with attention pooling",
        matches=lambda module: _TIMM_VIT.matches(module) and _pools_by_attention(module),
        classify_tokens=None,
    ),
    *(
        replace(_TIMM_VIT, name=name, matches=lambda module, kind=kind: isinstance(module, kind))
        for kind, name in TIMM_VITS.items()
    ),
    Family(
        name="NaFlexViT",
        matches=lambda module: isinstance(module, timm.models.naflexvit.NaFlexVit),
        stages=_timm_vit_stages,
        cam_layer=_timm_vit_cam_layer,
        normalised_cam_layer=_timm_vit_normed_layer,
        first_convolution=_naflex_vit_convolution,
        tokens=_naflex_vit_tokens,
        classify_tokens=_timm_vit_classify,
    ),
    Family(
        name="Swin",
        matches=lambda module: isinstance(
            module, (timm.models.swin_transformer.SwinTransformer, timm.models.swin_transformer_v2.SwinTransformerV2)
        ),
        stages=_timm_swin_stages,
        cam_layer=lambda module: _timm_swin_stages(module)[-1],
        normalised_cam_layer=lambda module: "norm",
        first_convolution=lambda module: find_convolution(module, "patch_embed"),
        stage_layout=_timm_swin_layout,
        windows=_timm_swin_windows,
    ),
    Family(
        name="FastViT",
        matches=lambda module: isinstance(module, timm.models.fastvit.FastVit),
        stages=_fastvit_stages,
        cam_layer=lambda module: _fastvit_stages(module)[-1],
        first_convolution=lambda module: find_convolution(module, "stem"),
        stage_layout=_fastvit_layout,
    ),
)
TIMM_WINDOWED_NETWORKS = (
    WindowedNetwork(
        matches=lambda module: isinstance(module, timm.models.swin_transformer_v2_cr.SwinTransformerV2Cr),
        windows=_timm_swin_cr_windows,
    ),
)
