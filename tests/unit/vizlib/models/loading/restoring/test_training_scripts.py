"""Checkpoints as training scripts write them give the logits of the network, or are refused with one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import vizlib
from vizlib import ModelError
from vizlib.core.text import Note

CLASSES = 4


def network(name: str = "test_resnet", **arguments) -> Any:
    """Return a timm network in which every parameter and buffer is random."""
    torch.manual_seed(0)
    module = timm.create_model(name, **{"num_classes": CLASSES, **arguments}).eval()
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) / 10)
    return module


RESNET, VIT = cache(lambda: network()), cache(lambda: network("test_vit"))


def weights(module: nn.Module, prefix: str = "", **renamed: str) -> dict[str, Tensor]:
    """Return a state dict with a prefix; `fc="head."` replaces the prefix and "fc." by "head."."""
    state = {}
    for key, value in module.state_dict().items():
        first, _, rest = key.partition(".")
        state[f"{renamed[first]}{rest}" if first in renamed else f"{prefix}{key}"] = value
    return state


def body(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return a state dict without the classifier."""
    return {f"{prefix}{key}": v for key, v in weights(module).items() if not key.startswith(("fc.", "head."))}


def projector(name: str, width: int) -> dict[str, Tensor]:
    """Return the weights of a projector of self-supervised learning: two linear layers and a normalisation."""
    norm = {f"{name}.1.{key}": torch.ones(8) for key in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.0.weight": torch.randn(8, width), **norm, f"{name}.3.weight": torch.randn(6, 8)}


def scaled(module: nn.Module, factor: float) -> nn.Module:
    """Return a copy with other weights."""
    other = copy.deepcopy(module)
    for value in other.state_dict().values():
        if value.is_floating_point():
            value.mul_(factor)
    return other


def save_and_load(path: Path, content: object, **options) -> vizlib.Model:
    torch.save(content, path)
    return vizlib.load(path, **options)


def refusal(path: Path, content: object, **options) -> str:
    """Return the sentence with which a file is refused."""
    torch.save(content, path)
    with pytest.raises(ModelError) as caught:
        vizlib.load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same_outputs(model: vizlib.Model, module: nn.Module) -> None:
    """Check that the outputs are bitwise equal."""
    photo = torch.rand(2, 3, *model.preprocessing.input_size)
    with torch.no_grad():
        assert torch.equal(model.module(photo), module(photo))


def find_note(model: vizlib.Model, code: str) -> Note:
    """Return the note of a code."""
    (note,) = (note for note in model.notes if isinstance(note, Note) and note.code == code)
    return note


def codes(model: vizlib.Model) -> set[str]:
    """Return the codes of a model's notes."""
    return {note.code for note in model.notes if isinstance(note, Note)}


def nest(state: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a dictionary that holds a state dict under a path of keys, beside what training scripts store."""
    for key in reversed(keys):
        state = {"epoch": 3, key: state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{}]}}
    return state


WRAPPED: dict[str, Callable[[], tuple[nn.Module, object]]] = {
    "pytorch-cifar": lambda: (RESNET(), nest(weights(RESNET(), "module."), "net")),
    "Lightning": lambda: (RESNET(), nest(weights(RESNET(), "net."), "state_dict")),
    "Lightning, compiled": lambda: (
        VIT(),
        nest(weights(VIT(), "model._orig_mod.backbone.", head="model._orig_mod.fc."), "state_dict"),
    ),
    "parallel inside": lambda: (RESNET(), weights(RESNET(), "model.module.")),
    "FSDP and activation checkpointing": lambda: (
        VIT(),
        {
            key.replace("blocks.0.", "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module."): value
            for key, value in weights(VIT(), "_fsdp_wrapped_module.").items()
        },
    ),
    "nested dictionaries": lambda: (RESNET(), nest(weights(RESNET()), "checkpoint", "model", "weights")),
    "a dictionary for each part": lambda: (
        RESNET(),
        {"backbone": body(RESNET()), "fc": RESNET().fc.state_dict(), "optimizer": {"lr": 0.1}},
    ),
    "mmpretrain": lambda: (RESNET(), nest(weights(RESNET(), "backbone.", fc="head.fc."), "state_dict")),
    "VISSL": lambda: (RESNET(), nest(weights(RESNET(), "module.base_encoder."), "model")),
    "parameters": lambda: (RESNET(), {k: nn.Parameter(v, v.is_floating_point()) for k, v in weights(RESNET()).items()}),
    "no bias": lambda: (VIT(), {key: value for key, value in weights(VIT()).items() if key != "head.bias"}),
    "Sequential of dropout and linear layer": lambda: (RESNET(), weights(RESNET(), "model.", fc="model.fc.1.")),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_load_finds_the_network_whatever_is_around_it(tmp_path, name):
    module, content = WRAPPED[name]()
    model = save_and_load(tmp_path / "my.pth", content)
    assert len(model.labels) == CLASSES
    if name == "no bias":
        module = copy.deepcopy(module)
        module.get_parameter("head.bias").data.zero_()
    assert_same_outputs(model, module)
    assert "model.ignored-weights" not in codes(model)


EXTRAS: dict[str, dict[str, Tensor]] = {
    "weights of a loss": {"criterion.criteria.0.weight": torch.ones(CLASSES)},
    "states of metrics": {"val_acc.tp": torch.zeros(4), "train_metrics.MulticlassAUROC.preds": torch.zeros(2, 3)},
    "queue of MoCo": {"queue": torch.zeros(128, 9), "queue_ptr": torch.zeros(1, dtype=torch.long)},
    "SwAV": {**projector("model.projection_head", 512), "model.prototypes.weight": torch.ones(30, 8)},
    "SimCLR": projector("projector", 512),
    "decoder": {"decoder.layers.0.weight": torch.ones(4, 512, 1, 1), "mask_token": torch.ones(1, 1, 4)},
    "auxiliary classifier": {"aux_head.fc.weight": torch.ones(CLASSES, 512), "aux_head.fc.bias": torch.ones(CLASSES)},
    "counters": {"model.conv1.total_ops": torch.zeros(1), "model.total_params": torch.zeros(1)},
    "weight averaging": {"n_averaged": torch.tensor(7)},
}


@pytest.mark.parametrize("architecture", [None, "test_resnet"])
@pytest.mark.parametrize("name", EXTRAS)
def test_load_leaves_out_what_the_training_alone_uses_and_names_it(tmp_path, name, architecture):
    content = {"state_dict": {**weights(RESNET(), "model."), **EXTRAS[name]}}
    model = save_and_load(tmp_path / "my.pth", content, architecture=architecture)
    assert_same_outputs(model, RESNET())
    note = find_note(model, "model.ignored-weights")
    assert f"state_dict.{min(EXTRAS[name])}" in note
    assert ("(+ " in note) == (len(EXTRAS[name]) > 3)


@pytest.mark.parametrize("architecture", [None, "test_resnet"])
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"model.layer1.0.attention.weight": torch.ones(64)}, "model.layer1.0.attention.weight"),
        ({"model.spatial.conv.weight": torch.ones(1, 2, 7, 7)}, "model.spatial.conv.weight"),
        ({"stem.weight": torch.ones(3, 1, 1, 1)}, "stem.weight"),
        ({"neck.weight": torch.ones(512), "neck.bias": torch.ones(512)}, "neck.bias"),
        ({"normalize.mean": torch.ones(1, 3, 1, 1)}, "normalize.mean"),
    ],
)
def test_load_refuses_what_may_be_part_of_the_network_and_says_how_to_load_it(tmp_path, extra, words, architecture):
    path = tmp_path / "my.pth"
    text = refusal(path, {**weights(RESNET(), "model."), **extra}, architecture=architecture)
    assert words in text
    assert "build the network yourself and use vizlib.wrap" in text
    path.with_suffix(".json").write_text(json.dumps({"ignore": [name.rsplit(".", 1)[0] for name in extra]}))
    model = vizlib.load(path, architecture=architecture)
    assert_same_outputs(model, RESNET())
    assert words in find_note(model, "model.ignored-weights")


def test_load_refuses_a_classifier_of_several_layers_in_a_way_that_helps(tmp_path):
    module = torchvision.models.resnet18(weights=None)
    module.fc = nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, CLASSES))  # type: ignore[assignment]
    for architecture in (None, "resnet18"):
        text = refusal(tmp_path / "my.pth", module.state_dict(), architecture=architecture)
        assert "fc.0.weight" in text
        assert "fc.2.weight" in text
        assert "vizlib.wrap" in text


COPIES: dict[str, tuple[str, str]] = {  # name -> where the network to load is, and where other copies are
    "timm": ("state_dict_ema.", "state_dict."),
    "DeiT": ("model_ema.", "model."),
    "DINO": ("teacher.backbone.", "student.module.backbone."),
    "MoCo": ("state_dict.module.encoder_q.", "state_dict.module.encoder_k."),
    "MoCo v3": ("state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."),
    "BYOL": ("online_network.", "target_network."),
    "robustness": ("model.module.model.", "model.module.attacker.model."),
    "stochastic weight averaging": ("swa_model.module.", "model."),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", COPIES)
def test_load_takes_the_copy_that_is_evaluated_and_the_sidecar_chooses_another(tmp_path, name, flat):
    chosen, other = COPIES[name]
    path, second = tmp_path / "my.pth", scaled(RESNET(), 0.5)
    content: dict[str, Any] = {}
    for place, module in ((other, second), (chosen, RESNET())):
        wrapper, _, prefix = ("", "", place) if flat else place.partition(".")
        content.setdefault(wrapper, {}).update(weights(module, prefix))
    model = save_and_load(path, content[""] if flat else content)
    assert_same_outputs(model, RESNET())
    note = find_note(model, "model.one-of-several")
    assert note.facts["chosen"] == chosen.rstrip(".")
    assert note.facts["others"] == other.rstrip(".")
    path.with_suffix(".json").write_text(json.dumps({"state_dict": other.rstrip(".")}))
    model = vizlib.load(path)
    assert_same_outputs(model, second)
    assert "model.one-of-several" not in codes(model)


def test_load_asks_which_of_several_networks_is_meant(tmp_path):
    path = tmp_path / "my.pth"
    ensemble = {**weights(RESNET(), "models.0."), **weights(scaled(RESNET(), 0.5), "models.1.")}
    text = refusal(path, ensemble)
    assert "holds several networks: models.0 (test_resnet), models.1 (test_resnet)" in text
    text = refusal(path, {"teacher": weights(VIT()), "student": weights(RESNET())})
    assert "teacher (test_vit), student (test_resnet)" in text
    path.with_suffix(".json").write_text(json.dumps({"state_dict": "student"}))
    assert_same_outputs(vizlib.load(path), RESNET())
    path.with_suffix(".json").write_text(json.dumps({"state_dict": "pupil"}))
    with pytest.raises(ModelError, match=r"has no network 'pupil', which my\.json names; it has teacher, student"):
        vizlib.load(path)
    same = {**weights(RESNET(), "models.0."), **weights(RESNET(), "models.1.")}
    path.with_suffix(".json").unlink()
    assert_same_outputs(save_and_load(path, same), RESNET())


SELF_SUPERVISED: dict[str, Callable[[], tuple[str, object]]] = {
    "DINO": lambda: (
        "test_vit",
        {
            "teacher": {
                **body(VIT(), "backbone."),
                "head.mlp.0.weight": torch.ones(8, 64),
                "head.mlp.0.bias": torch.ones(8),
                "head.last_layer.weight_v": torch.ones(9, 8),
            }
        },
    ),
    "MAE": lambda: (
        "test_vit",
        {"model": {**body(VIT()), "mask_token": torch.ones(1, 1, 8), "decoder_embed.weight": torch.ones(8, 64)}},
    ),
    "MoCo without its projector": lambda: (
        "test_resnet",
        {"state_dict": {**body(RESNET(), "module.encoder_q."), "module.queue": torch.ones(4, 9)}},
    ),
    "SwAV": lambda: ("test_resnet", {**body(RESNET(), "module."), **projector("module.projection_head", 512)}),
}


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_load_of_a_network_without_classifier_gives_features_and_says_so(tmp_path, name):
    architecture, content = SELF_SUPERVISED[name]()
    for stated in (None, architecture):
        model = save_and_load(tmp_path / "my.pth", content, architecture=stated)
        headless = network(architecture)
        headless.reset_classifier(0)
        assert_same_outputs(model, headless)
        assert model.output_kind == "features"
        assert {"model.no-classifier", "model.ignored-weights"} <= codes(model)
    text = refusal(tmp_path / "my.pth", content, labels=["cat", "dog"])
    assert "my.pth has no classifier, but labels= names 2" in text


def test_load_of_an_encoder_with_one_linear_layer_notes_that_it_may_be_an_embedding(tmp_path):
    content = {"state_dict": {**weights(RESNET(), "module.encoder_q."), "module.queue": torch.ones(4, 9)}}
    note = find_note(save_and_load(tmp_path / "my.pth", content), "model.embedding-network")
    assert "its 4 outputs may be an embedding instead of classes" in note


def test_load_refuses_a_headless_network_of_torchvision(tmp_path):
    content = body(torchvision.models.resnet18(weights=None))
    text = refusal(tmp_path / "my.pth", content, architecture="torchvision/resnet18")
    assert "without its classifier" in text


def test_load_refuses_tensors_that_repeat_a_few_values(tmp_path):
    """Such a file of a few kilobytes could claim a network of any size."""
    content = {
        **weights(RESNET()),
        "fc.weight": torch.ones(1, 1).expand(10**9, 512),
        "fc.bias": torch.ones(1).expand(10**9),
    }
    assert "without values" in refusal(tmp_path / "my.pth", content)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_load_refuses_weights_that_are_no_real_numbers(tmp_path, dtype):
    content = weights(RESNET())
    content["layer1.0.conv1.weight"] = content["layer1.0.conv1.weight"].to(dtype)
    for architecture in (None, "test_resnet"):
        text = refusal(tmp_path / "my.pth", content, architecture=architecture)
        assert f"holds {dtype} numbers as layer1.0.conv1.weight".replace("torch.", "") in text


def test_load_of_a_checkpoint_that_contains_itself_ends(tmp_path):
    content: dict[str, Any] = {"state_dict": weights(RESNET())}
    for i in range(50):
        content[f"copy {i}"] = content
    assert_same_outputs(save_and_load(tmp_path / "my.pth", content), RESNET())


def test_load_refuses_a_file_of_very_many_networks(tmp_path):
    one = torch.ones(1)
    content = {f"{i}.layer1.0.conv1.weight": one for i in range(10_000)}
    assert "more than 32 networks" in refusal(tmp_path / "my.pth", content)
    content = {f"layer1.{i}.conv1.weight": one for i in range(50_001)}
    assert "holds 50,001 tensors, expected" in refusal(tmp_path / "my.pth", content)
