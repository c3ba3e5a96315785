"""Weights under the names of other code bases give the outputs of the same network."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import vizlib
from vizlib.models.loading.restoring.key_names import list_renamed_weights

SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}


def randomise(module: nn.Module) -> nn.Module:
    """Return the module with random parameters."""
    torch.manual_seed(0)
    for value in module.parameters():
        value.data.add_(torch.rand_like(value) / 10)
    return module.eval()


def make_vit(**arguments) -> Any:
    return randomise(timm.create_model("test_vit", **{"num_classes": 4, **arguments}))


def make_swin() -> Any:
    return randomise(timm.create_model("swin_tiny_patch4_window7_224", num_classes=4))


def rename(weights: dict[str, Tensor], *patterns: tuple[str, str]) -> dict[str, Tensor]:
    """Replace the first pattern that the start of a name matches."""
    renamed = {}
    for key, value in weights.items():
        new = next((re.sub(f"^{old}", new, key) for old, new in patterns if re.match(old, key)), key)
        renamed[new] = value
    return renamed


def assert_same_outputs(model: vizlib.Model, module: nn.Module) -> None:
    photo = torch.rand(1, 3, *model.preprocessing.input_size)
    with torch.no_grad():
        assert torch.equal(model.module(photo), module(photo))


@pytest.mark.parametrize("distilled", [False, True])
def test_mmpretrains_vit(tmp_path, distilled):
    architecture = "deit_tiny_distilled_patch16_224" if distilled else "test_vit"
    module = randomise(timm.create_model(architecture, num_classes=4))
    weights = rename(
        module.state_dict(),
        (r"patch_embed\.proj\.", "backbone.patch_embed.projection."),
        (r"blocks\.(\d+)\.norm(\d)\.", r"backbone.layers.\1.ln\2."),
        (r"blocks\.(\d+)\.mlp\.fc1\.", r"backbone.layers.\1.ffn.layers.0.0."),
        (r"blocks\.(\d+)\.mlp\.fc2\.", r"backbone.layers.\1.ffn.layers.1."),
        (r"blocks\.(\d+)\.", r"backbone.layers.\1."),
        (r"norm\.", "backbone.ln1."),
        (r"(head|head_dist)\.", r"head.layers.\1."),
        ("", "backbone."),
    )
    torch.save({"meta": {"epoch": 3}, "state_dict": weights}, tmp_path / "my.pth")
    assert_same_outputs(vizlib.load(tmp_path / "my.pth"), module)


@pytest.mark.slow
def test_layer_scale_of_deit_3_as_its_authors_name_it(tmp_path):
    module = randomise(timm.create_model("deit3_small_patch16_224", num_classes=4))
    weights = rename(module.state_dict(), (r"(blocks\.\d+)\.ls(\d)\.gamma", r"\1.gamma_\2"))
    assert "blocks.0.gamma_1" in weights
    torch.save({"model": weights}, tmp_path / "my.pth")
    assert_same_outputs(vizlib.load(tmp_path / "my.pth"), module)


@pytest.mark.slow
def test_swin_as_its_authors_save_it(tmp_path):
    """Patch merging ends a stage, buffers are stored, and the classifier is called head."""
    module = make_swin()
    weights = rename(
        module.state_dict(),
        *((rf"layers\.{i + 1}\.downsample\.", f"layers.{i}.downsample.") for i in range(3)),
        (r"head\.fc\.", "head."),
    )
    weights["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    weights["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    torch.save({"model": weights}, tmp_path / "my.pth")
    model = vizlib.load(tmp_path / "my.pth")
    assert_same_outputs(model, module)
    assert not any("Left out" in note for note in model.notes)


class MergePatchesLikeMmpretrain(nn.Module):
    """Patch merging with `nn.Unfold`, which orders the inputs of the reduction by channel, row and column."""

    def __init__(self, norm: nn.LayerNorm, reduction: nn.Linear) -> None:
        super().__init__()
        self.norm, self.reduction = norm, reduction

    def forward(self, tokens: Tensor) -> Tensor:
        batch, height, width, _ = tokens.shape
        merged = nn.functional.unfold(tokens.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
        return self.reduction(self.norm(merged)).reshape(batch, height // 2, width // 2, -1)


@pytest.mark.slow
def test_mmpretrains_swin_with_its_order_of_merged_patches(tmp_path):
    theirs = make_swin()
    for stage in theirs.layers[1:]:
        stage.downsample = MergePatchesLikeMmpretrain(stage.downsample.norm, stage.downsample.reduction)
    weights = rename(
        theirs.state_dict(),
        (r"patch_embed\.proj\.", "backbone.patch_embed.projection."),
        (r"layers\.(\d)\.blocks\.(\d+)\.attn\.", r"backbone.stages.\1.blocks.\2.attn.w_msa."),
        (r"layers\.(\d)\.blocks\.(\d+)\.mlp\.fc1\.", r"backbone.stages.\1.blocks.\2.ffn.layers.0.0."),
        (r"layers\.(\d)\.blocks\.(\d+)\.mlp\.fc2\.", r"backbone.stages.\1.blocks.\2.ffn.layers.1."),
        *((rf"layers\.{i + 1}\.downsample\.", f"backbone.stages.{i}.downsample.") for i in range(3)),
        (r"layers\.", "backbone.stages."),
        (r"norm\.", "backbone.norm3."),
        (r"head\.fc\.", "head.fc."),
        ("", "backbone."),
    )
    torch.save({"state_dict": weights}, tmp_path / "my.pth")
    model = vizlib.load(tmp_path / "my.pth")
    photo = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        outputs, expected = model.module(photo), theirs.eval()(photo)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_swin_of_another_window_and_its_assumptions(tmp_path):
    module = randomise(timm.create_model("swin_tiny_patch4_window7_224", num_classes=4, window_size=4, img_size=128))
    torch.save(module.state_dict(), tmp_path / "my.pth")
    model = vizlib.load(tmp_path / "my.pth")
    assert model.preprocessing.input_size == (128, 128)
    assert any("windows of 4 × 4 tokens, GELU and 1e-05 are assumed" in note for note in model.notes)
    assert_same_outputs(model, module)


@pytest.mark.slow
def test_windows_that_would_need_much_memory_are_refused(tmp_path):
    weights = dict(timm.create_model("swin_tiny_patch4_window7_224", num_classes=4).state_dict())
    weights = {
        key: torch.zeros(199**2, value.shape[1]) if key.endswith("bias_table") else value
        for key, value in weights.items()
    }
    torch.save(weights, tmp_path / "my.pth")
    with pytest.raises(vizlib.ModelError, match=r"relative_position_bias_table is 39601 × 3"):
        vizlib.load(tmp_path / "my.pth")


def test_pruned_weights_are_multiplied_with_their_masks(tmp_path):
    module = randomise(timm.create_model("test_resnet", num_classes=4))
    for part in (module.layer1[0].conv1, module.fc):  # type: ignore[index, union-attr]
        prune.random_unstructured(part, "weight", amount=0.5)  # type: ignore[arg-type]
    torch.save(module.state_dict(), tmp_path / "my.pth")
    for architecture in (None, "test_resnet"):
        assert_same_outputs(vizlib.load(tmp_path / "my.pth", architecture=architecture), module)


def test_plain_weights_are_listed_once_and_unchanged():
    weights = make_vit().state_dict()
    assert [list(each) for each in list_renamed_weights(weights)] == [list(weights)]
