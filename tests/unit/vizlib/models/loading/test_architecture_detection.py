"""Architectures are detected by the names and shapes of weights, and the loaded network equals the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

import vizlib
from vizlib import ModelError
from vizlib.models.loading.architecture_detection import (
    DetectedArchitecture,
    build_network,
    detect_architecture,
    unwrap_backbone,
)

SQUARE = {"img_size": 224}


def state(name: str, **arguments) -> dict[str, torch.Tensor]:
    """Return a state dict on the meta device: names and shapes without values."""
    with torch.device("meta"):
        return timm.create_model(name, **{"num_classes": 7, **arguments}).state_dict()


def network(name: str = "test_resnet", **arguments) -> nn.Module:
    """Return a timm network in which every parameter and buffer is random."""
    torch.manual_seed(0)
    module = timm.create_model(name, **{"num_classes": 10, **arguments}).eval()
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) / 10)
    return module


def save_and_load(path: Path, weights, **options) -> vizlib.Model:
    torch.save(weights, path)
    return vizlib.load(path, **options)


def assert_architecture_required(path: Path, weights) -> None:
    """Check that the file is refused with one line that names the flag."""
    torch.save(weights, path)
    with pytest.raises(ModelError) as caught:
        vizlib.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name} does not state its architecture")
    assert "--architecture" in text
    assert f"{path.stem}.json" in text
    assert "\n" not in text


def assert_same_logits(model: vizlib.Model, module: nn.Module) -> None:
    """Check that the logits are bitwise equal."""
    photo = torch.rand(2, 3, *model.preprocessing.input_size)
    with torch.no_grad():
        assert torch.equal(model.module(photo), module(photo))


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "resnet50d", "resnext50_32x4d", "wide_resnet50_2", "seresnet50", "test_resnet"],
)
@pytest.mark.parametrize("classes", [1, 1000])
def test_detect_architecture_finds_a_resnet_with_any_number_of_classes(name, classes):
    assert detect_architecture(state(name, num_classes=classes)) == DetectedArchitecture(name)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 224),
        ("vit_tiny_patch16_224", 160),
        ("vit_base_patch32_224", 224),
        ("deit_tiny_distilled_patch16_224", 224),
        ("deit3_small_patch16_224", 224),  # its position embedding excludes the class token
        ("vit_small_patch14_dinov2", 518),
        ("vit_small_patch14_reg4_dinov2", 224),  # this one excludes the registers too
        ("vit_base_patch16_clip_224", 224),
        ("vit_base_patch16_gap_224", 224),
        ("vit_base_patch16_siglip_224", 224),
        ("flexivit_small", 240),
        ("test_vit", 160),
    ],
)
def test_detect_architecture_finds_a_vision_transformer_with_any_number_of_classes_and_input_size(name, size):
    assert detect_architecture(state(name, img_size=size)) == DetectedArchitecture(name, {"img_size": size})


@pytest.mark.parametrize("name", ["resnet18", pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)])
def test_detect_architecture_returns_none_if_one_weight_has_another_shape_or_name(name):
    weights = state(name)
    key = next(key for key, value in weights.items() if value.ndim == 1 and ".1." in key)
    assert detect_architecture({**weights, key: torch.ones(3)}) is None
    assert detect_architecture({**weights, "more": torch.ones(3)}) is None
    assert detect_architecture({name: value for name, value in weights.items() if name != key}) is None


@pytest.mark.parametrize("sidecar", [None, {"labels": [f"thing {i}" for i in range(10)]}, {"remark": "no labels"}])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_load_without_architecture_gives_bitwise_the_same_logits(tmp_path, ending, sidecar):
    path, module = tmp_path / f"my{ending}", network()
    if ending == ".pth":
        torch.save(module.state_dict(), path)
    else:
        safetensors.torch.save_file(module.state_dict(), path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    model = vizlib.load(path)
    assert_same_logits(model, module)
    assert model.labels == tuple((sidecar or {}).get("labels") or [f"class {i}" for i in range(10)])


def test_load_uses_the_input_size_that_a_transformer_was_built_for(tmp_path, cheetah):
    module = network("test_vit", img_size=96)
    model = save_and_load(tmp_path / "my.pth", module.state_dict())
    assert model.preprocessing.input_size == (96, 96)
    assert_same_logits(model, module)
    assert len(model.predict(cheetah)) == 5


def test_load_labels_a_thousand_outputs_with_imagenets_classes(tmp_path):
    assert save_and_load(tmp_path / "my.pth", network(num_classes=1000).state_dict()).labels[0] == "tench, Tinca tinca"


class Own(nn.Module):
    """A timm backbone and a linear layer of one's own, under given attribute names."""

    def __init__(self, name: str, body: str, head: str, *, deep: bool = False) -> None:
        super().__init__()
        self.names = body, head
        backbone: Any = network(name, num_classes=0)
        linear = nn.Linear(backbone.num_features, 10)
        self.add_module(body, backbone)
        self.add_module(head, nn.Sequential(nn.Dropout(), linear) if deep else linear)

    def forward(self, image):
        body, head = map(self.get_submodule, self.names)
        return head(body(image))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize(
    ("body", "head", "deep"),
    [
        ("backbone", "head", False),
        ("backbone", "classifier", False),
        ("backbone", "fc", False),
        ("backbone", "classifier", True),
        ("model", "fc", False),
    ],
)
def test_load_takes_a_backbone_with_one_linear_layer(tmp_path, name, body, head, deep):
    module = Own(name, body, head, deep=deep).eval()
    model = save_and_load(tmp_path / "my.pth", module.state_dict())
    assert_same_logits(model, module)
    assert model.labels == tuple(f"class {i}" for i in range(10))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["backbone.", "module.", "model.", "_orig_mod.", "model.backbone.", "module.model."])
def test_load_removes_prefixes_and_wrappers(tmp_path, prefix, wrapper):
    module = network()
    weights = {prefix + key: value for key, value in module.state_dict().items()}
    assert_same_logits(
        save_and_load(tmp_path / "my.pth", {"epoch": 3, wrapper: weights} if wrapper else weights), module
    )


def test_load_takes_a_file_without_batch_counters(tmp_path):
    module = network()
    without_counters = {
        key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    assert len(without_counters) < len(module.state_dict())
    assert_same_logits(save_and_load(tmp_path / "my.pth", without_counters), module)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_load_requires_the_architecture_of_weights_without_classifier(tmp_path, name):
    assert_architecture_required(tmp_path / "my.pth", network(name, num_classes=0).state_dict())


def test_load_requires_the_architecture_if_several_layers_follow_the_backbone(tmp_path):
    body = {f"backbone.{key}": value for key, value in network(num_classes=0).state_dict().items()}
    two_layers = {"head.0.weight": torch.ones(8, 512), "head.0.bias": torch.ones(8)}
    assert_architecture_required(
        tmp_path / "my.pth", {**body, **two_layers, "head.2.weight": torch.ones(10, 8), "head.2.bias": torch.ones(10)}
    )
    assert_architecture_required(
        tmp_path / "my.pth", {**body, "norm.weight": torch.ones(512), "norm.bias": torch.ones(512)}
    )
    with_classifier = {f"backbone.{key}": value for key, value in network().state_dict().items()}
    assert_architecture_required(
        tmp_path / "my.pth", {**with_classifier, "head.weight": torch.ones(3, 10), "head.bias": torch.ones(3)}
    )


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "densenet121"])
def test_load_requires_the_architecture_of_another_family(tmp_path, name):
    assert detect_architecture(state(name)) is None
    assert_architecture_required(tmp_path / "my.pth", {key: torch.zeros(()) for key in state(name)})


def test_load_requires_the_architecture_if_patches_form_no_square(tmp_path):
    weights = network("test_vit").state_dict()
    weights["pos_embed"] = torch.zeros(1, 1 + 6 * 7, weights["pos_embed"].shape[2])
    assert_architecture_required(tmp_path / "my.pth", weights)


@pytest.mark.parametrize("key", ["pos_embed", "cls_token", "patch_embed.proj.weight", "head.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (1, 1, 1, 1, 1)])
def test_load_raises_one_line_for_weights_with_impossible_axes(tmp_path, key, shape):
    weights = {**network("test_vit").state_dict(), key: torch.zeros(shape)}
    torch.save(weights, tmp_path / "my.pth")
    with pytest.raises(ModelError, match=r"my\.pth"):
        vizlib.load(tmp_path / "my.pth")


def test_unwrap_backbone_leaves_other_state_dicts_unchanged():
    plain = {"conv1.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    assert unwrap_backbone(plain) == plain


def test_load_notes_assumed_preprocessing_on_the_model_and_its_runs(tmp_path, cheetah):
    module = network()
    path = tmp_path / "my.pth"
    (note,) = save_and_load(path, module.state_dict()).notes
    assert note.startswith(
        "my.pth does not state how photos are prepared; the default preprocessing of test_resnet is assumed"
    )
    assert "(160 × 160 pixels, mean 0.5...)" in note
    assert vizlib.load(path).run(cheetah).notes.count(note) == 1
    assert vizlib.explain(vizlib.load(path), cheetah, "saliency").notes.count(note) == 1
    preprocessing = {"input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    path.with_suffix(".json").write_text(json.dumps({"preprocessing": preprocessing}))
    model = vizlib.load(path)
    assert model.preprocessing.input_size == (64, 64)
    assert model.notes == ()
    assert not any("how photos are prepared" in note for note in model.run(cheetah).notes)


def test_load_notes_assumed_torchvision_preprocessing(tmp_path):
    weights = build_network("torchvision/resnet18", 3).state_dict()
    (note,) = save_and_load(tmp_path / "my.pth", weights, architecture="torchvision/resnet18").notes
    assert "the default preprocessing of torchvision/resnet18 is assumed (224 × 224 pixels" in note


def test_load_passes_sidecar_arguments_to_a_detected_architecture(tmp_path):
    (tmp_path / "my.json").write_text(json.dumps({"arguments": {"global_pool": "max"}}))
    module = network(global_pool="max")
    assert_same_logits(save_and_load(tmp_path / "my.pth", module.state_dict()), module)


@pytest.mark.parametrize(
    "arguments", [{"pretrained": True}, {"checkpoint_path": "other.pth"}, {"pretrained_cfg": {"file": "other.pth"}}]
)
def test_build_network_refuses_timm_arguments_that_load_weights(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(timm, "create_model", lambda *a, **b: pytest.fail("the network was built"))
    with pytest.raises(ModelError, match=f"the argument {next(iter(arguments))} would load other weights"):
        build_network("test_resnet", 10, arguments)


def test_build_network_refuses_torchvision_arguments_that_load_weights():
    with pytest.raises(ModelError, match="the argument weights would load other weights"):
        build_network("torchvision/resnet18", 1000, {"weights": "DEFAULT"})
