"""A weight file without a sidecar is recognised by its names and shapes, and answers as the network it came from."""

from __future__ import annotations

import json
from pathlib import Path

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
    """The names and shapes of a network's weights, without any numbers."""
    with torch.device("meta"):
        return timm.create_model(name, **{"num_classes": 7, **arguments}).state_dict()


def network(name: str = "test_resnet", **arguments) -> nn.Module:
    """A network of timm's with random numbers everywhere, those that start at 0 or 1 included."""
    torch.manual_seed(0)
    module = timm.create_model(name, **{"num_classes": 10, **arguments}).eval()
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) / 10)
    return module


def loaded(path: Path, weights, **options) -> vizlib.Model:
    torch.save(weights, path)
    return vizlib.load(path, **options)


def asked(path: Path, weights) -> None:
    """The file is refused in one sentence that names the flag."""
    torch.save(weights, path)
    with pytest.raises(ModelError) as caught:
        vizlib.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name} does not state its architecture")
    assert "--architecture" in text
    assert f"{path.stem}.json" in text
    assert "\n" not in text


def same(model: vizlib.Model, module: nn.Module) -> None:
    """Both answer alike, to the last bit."""
    photo = torch.rand(2, 3, *model.preprocessing.input_size)
    with torch.no_grad():
        assert torch.equal(model.module(photo), module(photo))


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "resnet50d", "resnext50_32x4d", "wide_resnet50_2", "seresnet50", "test_resnet"],
)
@pytest.mark.parametrize("classes", [1, 1000])
def test_a_resnet_is_recognised_whatever_its_classes(name, classes):
    assert detect_architecture(state(name, num_classes=classes)) == DetectedArchitecture(name)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 224),
        ("vit_tiny_patch16_224", 160),
        ("vit_base_patch32_224", 224),
        ("deit_tiny_distilled_patch16_224", 224),
        ("deit3_small_patch16_224", 224),  # its position embedding leaves the class token out
        ("vit_small_patch14_dinov2", 518),
        ("vit_small_patch14_reg4_dinov2", 224),  # this one's leaves the registers out too
        ("vit_base_patch16_clip_224", 224),
        ("vit_base_patch16_gap_224", 224),
        ("vit_base_patch16_siglip_224", 224),
        ("flexivit_small", 240),
        ("test_vit", 160),
    ],
)
def test_a_vision_transformer_is_recognised_whatever_its_classes_and_the_size_of_its_photos(name, size):
    assert detect_architecture(state(name, img_size=size)) == DetectedArchitecture(name, {"img_size": size})


@pytest.mark.parametrize("name", ["resnet18", pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)])
def test_one_weight_of_another_shape_or_name_is_another_network(name):
    weights = state(name)
    key = next(key for key, value in weights.items() if value.ndim == 1 and ".1." in key)
    assert detect_architecture({**weights, key: torch.ones(3)}) is None
    assert detect_architecture({**weights, "more": torch.ones(3)}) is None
    assert detect_architecture({other: value for other, value in weights.items() if other != key}) is None


@pytest.mark.parametrize("sidecar", [None, {"labels": [f"thing {i}" for i in range(10)]}, {"remark": "no labels"}])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_without_architecture_answers_to_the_bit_as_its_network(tmp_path, ending, sidecar):
    path, module = tmp_path / f"my{ending}", network()
    if ending == ".pth":
        torch.save(module.state_dict(), path)
    else:
        safetensors.torch.save_file(module.state_dict(), path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    model = vizlib.load(path)
    same(model, module)
    assert model.labels == tuple((sidecar or {}).get("labels") or [f"class {i}" for i in range(10)])


def test_a_transformer_for_other_photos_is_shown_photos_of_its_size(tmp_path, cheetah):
    module = network("test_vit", img_size=96)
    model = loaded(tmp_path / "my.pth", module.state_dict())
    assert model.preprocessing.input_size == (96, 96)
    same(model, module)
    assert len(model.predict(cheetah)) == 5


def test_a_thousand_outputs_of_an_imagenet_architecture_have_imagenets_names(tmp_path):
    assert loaded(tmp_path / "my.pth", network(num_classes=1000).state_dict()).labels[0] == "tench, Tinca tinca"


class Own(nn.Module):
    """What people write: a backbone of timm's, and a linear layer of their own under some name."""

    def __init__(self, name: str, body: str, head: str, *, deep: bool = False) -> None:
        super().__init__()
        self.names = body, head
        backbone = network(name, num_classes=0)
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
def test_a_backbone_with_a_linear_layer_beside_it_answers_as_the_whole(tmp_path, name, body, head, deep):
    module = Own(name, body, head, deep=deep).eval()
    model = loaded(tmp_path / "my.pth", module.state_dict())
    same(model, module)
    assert model.labels == tuple(f"class {i}" for i in range(10))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["backbone.", "module.", "model.", "_orig_mod.", "model.backbone.", "module.model."])
def test_prefixes_and_wrappers_hide_no_network(tmp_path, prefix, wrapper):
    module = network()
    weights = {prefix + key: value for key, value in module.state_dict().items()}
    same(loaded(tmp_path / "my.pth", {"epoch": 3, wrapper: weights} if wrapper else weights), module)


def test_a_file_as_old_as_pytorch_0_3_loads(tmp_path):
    module = network()
    old = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(module.state_dict())
    same(loaded(tmp_path / "my.pth", old), module)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_weights_without_a_classifier_ask_for_the_architecture(tmp_path, name):
    asked(tmp_path / "my.pth", network(name, num_classes=0).state_dict())


def test_several_layers_beside_the_backbone_ask_for_the_architecture(tmp_path):
    body = {f"backbone.{key}": value for key, value in network(num_classes=0).state_dict().items()}
    two = {"head.0.weight": torch.ones(8, 512), "head.0.bias": torch.ones(8)}
    asked(tmp_path / "my.pth", {**body, **two, "head.2.weight": torch.ones(10, 8), "head.2.bias": torch.ones(10)})
    asked(tmp_path / "my.pth", {**body, "norm.weight": torch.ones(512), "norm.bias": torch.ones(512)})
    whole = {f"backbone.{key}": value for key, value in network().state_dict().items()}  # with its own classifier
    asked(tmp_path / "my.pth", {**whole, "head.weight": torch.ones(3, 10), "head.bias": torch.ones(3)})


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "densenet121"])
def test_a_network_of_another_family_asks_for_the_architecture(tmp_path, name):
    assert detect_architecture(state(name)) is None
    asked(tmp_path / "my.pth", {key: torch.zeros(()) for key in state(name)})


def test_patches_that_make_no_square_ask_for_the_architecture(tmp_path):
    weights = network("test_vit").state_dict()
    weights["pos_embed"] = torch.zeros(1, 1 + 6 * 7, weights["pos_embed"].shape[2])
    asked(tmp_path / "my.pth", weights)


@pytest.mark.parametrize("key", ["pos_embed", "cls_token", "patch_embed.proj.weight", "head.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (1, 1, 1, 1, 1)])
def test_weights_with_axes_that_make_no_sense_are_one_sentence(tmp_path, key, shape):
    weights = {**network("test_vit").state_dict(), key: torch.zeros(shape)}
    torch.save(weights, tmp_path / "my.pth")
    with pytest.raises(ModelError, match=r"my\.pth"):
        vizlib.load(tmp_path / "my.pth")


def test_other_state_dicts_keep_their_names():
    plain = {"conv1.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    assert unwrap_backbone(plain) == plain


def test_preprocessing_that_had_to_be_assumed_is_a_note_of_the_model_and_of_its_runs(tmp_path, cheetah):
    module = network()
    path = tmp_path / "my.pth"
    (note,) = loaded(path, module.state_dict()).notes
    assert note.startswith("my.pth does not state how photos are prepared; the default preprocessing of test_resnet is assumed")
    assert "(160 × 160 pixels, mean 0.5...)" in note
    assert vizlib.load(path).run(cheetah).notes.count(note) == 1
    assert vizlib.explain(vizlib.load(path), cheetah, "saliency").notes.count(note) == 1
    path.with_suffix(".json").write_text(json.dumps({"preprocessing": {"input_size": [3, 64, 64]}}))
    model = vizlib.load(path)
    assert model.preprocessing.input_size == (64, 64)
    assert model.notes == ()
    assert not any("how photos are prepared" in note for note in model.run(cheetah).notes)


def test_torchvisions_preprocessing_is_assumed_in_a_note_too(tmp_path):
    weights = build_network("torchvision/resnet18", 3).state_dict()
    (note,) = loaded(tmp_path / "my.pth", weights, architecture="torchvision/resnet18").notes
    assert "the default preprocessing of torchvision/resnet18 is assumed (224 × 224 pixels" in note


def test_arguments_of_a_sidecar_count_for_a_recognised_network_too(tmp_path):
    (tmp_path / "my.json").write_text(json.dumps({"arguments": {"global_pool": "max"}}))
    module = network(global_pool="max")
    same(loaded(tmp_path / "my.pth", module.state_dict()), module)


@pytest.mark.parametrize(
    "arguments", [{"pretrained": True}, {"checkpoint_path": "other.pth"}, {"pretrained_cfg": {"file": "other.pth"}}]
)
def test_a_sidecar_cannot_make_timm_read_another_file(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(timm, "create_model", lambda *a, **b: pytest.fail("the network was built"))
    with pytest.raises(ModelError, match=f"the argument {next(iter(arguments))} would load other weights"):
        build_network("test_resnet", 10, arguments)


def test_a_sidecar_cannot_make_torchvision_download():
    with pytest.raises(ModelError, match="the argument weights would load other weights"):
        build_network("torchvision/resnet18", 1000, {"weights": "DEFAULT"})
