"""Names that other code bases give the weights of the same networks, converted to timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

# mmpretrain's layers -> timm's; the names on the left may follow any prefix, as the classifier is beside the backbone.
_MMPRETRAIN_VIT = (
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"layers\.(\d+)\.ln(\d)\.", r"blocks.\1.norm\2."),
    (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"layers\.(\d+)\.attn\.gamma1\.weight", r"blocks.\1.ls1.gamma"),
    (r"layers\.(\d+)\.ffn\.gamma2\.weight", r"blocks.\1.ls2.gamma"),
    (r"layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
    (r"pre_norm\.", "norm_pre."),
    (r"ln1\.", "norm."),
)
_MMPRETRAIN_SWIN = (
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.", r"layers.\1.blocks.\2.attn."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.", r"layers.\1.blocks.\2.mlp.fc1."),
    (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.", r"layers.\1.blocks.\2.mlp.fc2."),
    (r"stages\.(\d+)\.blocks\.", r"layers.\1.blocks."),
    (r"stages\.(\d+)\.downsample\.", r"layers.\1.downsample."),
    (r"norm3\.", "norm."),
)


def list_renamed_weights(weights: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """Yield the weights of a network under their own names, then under timm's where they are named as in other code.

    Args:
        weights: State dict without a prefix.
    """
    yield weights
    for is_named_so, convert in _CONVENTIONS:
        if is_named_so(weights):
            yield convert(weights)


def _rename(weights: Mapping[str, Tensor], patterns: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        new = key
        for pattern, replacement in patterns:
            new, count = re.subn(f"^{pattern}", replacement, key)
            if count:
                break
        renamed[new] = value
    return renamed


def _convert_original_swin(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move each patch merging from the end of a stage, as in Microsoft's code, to the start of the next."""
    pattern = re.compile(r"^layers\.(\d+)\.downsample\.")
    return {pattern.sub(lambda m: f"layers.{int(m[1]) + 1}.downsample.", key): v for key, v in weights.items()}


def _convert_mmpretrain_swin(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename, and reorder the inputs of each patch merging.

    mmpretrain orders the four merged tokens by channel, row and column (`nn.Unfold`), Swin by column, row and channel.
    """
    renamed = _convert_original_swin(_rename(weights, _MMPRETRAIN_SWIN))
    for key, value in renamed.items():
        if ".downsample." in key and value.ndim and value.shape[-1] % 4 == 0:
            merged = value.reshape(*value.shape[:-1], value.shape[-1] // 4, 2, 2)
            renamed[key] = merged.movedim((-1, -2, -3), (-3, -2, -1)).reshape(value.shape)
    return renamed


def _convert_layer_scale(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the layer scale of DeiT III's original code."""
    return {re.sub(r"^(blocks\.\d+)\.gamma_(\d)$", r"\1.ls\2.gamma", key): value for key, value in weights.items()}


_CONVENTIONS: tuple[
    tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]], ...
] = (
    (lambda weights: "layers.0.downsample.reduction.weight" in weights, _convert_original_swin),
    (lambda weights: "blocks.0.gamma_1" in weights, _convert_layer_scale),
    (lambda weights: "layers.0.ln1.weight" in weights, lambda weights: _rename(weights, _MMPRETRAIN_VIT)),
    (lambda weights: "stages.0.blocks.0.attn.w_msa.qkv.weight" in weights, _convert_mmpretrain_swin),
)
