"""`load` and `wrap`, and the predictions, targets, stages and errors of the models they return."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants as hub
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.models.resnet import resnet18
from torch import nn

import vizlib
from vizlib import ModelError, TargetError
from vizlib.models.loading import checkpoint_files, downloads
from vizlib.models.preprocessing import Preprocessing, TimmPreprocessing

SMALL = {"input_size": [3, 64, 64], "crop_pct": 1.0}


def network(*last_layers: nn.Module, classes: int = 6) -> nn.Sequential:
    """Return a small network of no known family with two resolutions and a classifier."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    deep = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
    return nn.Sequential(
        *first, deep, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes), *last_layers
    ).eval()


@pytest.fixture(scope="module")
def resnet(data):
    return vizlib.load(data / "weights" / "resnet18.in1k.safetensors", architecture="resnet18")


@pytest.fixture(scope="module")
def plain():
    return vizlib.wrap(network(), preprocessing=SMALL)


def error_of(error: type[Exception], call, *arguments, **options) -> str:
    """Return the message of the error that a call raises, after checking that it is one line."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("file", ["resnet18.in1k", "deit_tiny_patch16_224.in1k"])
def test_load_file_with_architecture_equals_timm(data, cheetah, file):
    path = data / "weights" / f"{file}.safetensors"
    architecture = file.removesuffix(".in1k")
    module = timm.create_model(architecture).eval()
    module.load_state_dict(safetensors.torch.load_file(path))
    transform: Any = create_transform(**resolve_model_data_config(module))
    with torch.no_grad():
        expected = module(transform(cheetah).unsqueeze(0))[0]
    model = vizlib.load(path, architecture=architecture)
    for prediction in model.predict(cheetah, top=1000):
        assert prediction.logit == expected[prediction.index].item()
    assert model.predict(cheetah)[0].label == "cheetah, chetah, Acinonyx jubatus"


def test_load_bundled_model_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = vizlib.load("resnet18-imagenette")
    assert len(model.labels) == 10
    assert "resnet18-imagenette" in repr(model)
    assert "10 classes" in repr(model)


def test_list_models_lists_bundled_models_first_by_classes_and_accuracy():
    entries = vizlib.list_models()
    bundled = [entry for entry in entries if entry.bundled]
    assert entries[: len(bundled)] == bundled
    assert {entry.name for entry in bundled} == set(checkpoint_files.list_bundled())
    *others, last = bundled
    ranks = [(entry.class_count, entry.accuracy or 0) for entry in others]
    assert ranks == sorted(ranks, reverse=True)
    assert [entry.class_count for entry in others] == [1000, 10, 10]
    assert all(entry.size_mb > 0 and entry.classes.startswith(("1,000 ", "tench, ")) for entry in others)
    assert (last.reads_prompts, last.class_count, last.classes) == (True, 60, "60 classes")
    for entry in entries[len(bundled) :]:
        plain = entry.name.removeprefix("torchvision/")
        known = torchvision.models.list_models(torchvision.models) if plain != entry.name else timm.list_pretrained()
        assert plain in known


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18-imagnette", "did you mean resnet18-imagenette"),
        ("vit_bas_patch16_224", "did you mean vit_base_patch16_224"),
        ("ResNet50", "did you mean resnet50"),
        ("timm/resnet50", "did you mean resnet50"),
        ("resnet50.nope", "timm has no weights called 'resnet50.nope'; did you mean resnet50."),
        ("resnet18.a1_in1", "did you mean resnet18.a1_in1k"),
        ("botnet50ts_256", "load a file with architecture='botnet50ts_256'"),
        ("torchvision/resnet55", "did you mean resnet50"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision has no classifier"),
        ("", "there are clip-digits, resnet18-imagenette"),
    ],
)
def test_load_suggests_names_for_an_unknown_one(name, message):
    assert message in error_of(ModelError, vizlib.load, name)


def test_load_refuses_a_file_of_another_type_given_as_str(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"weights")
    assert "mine.txt is not a weight file; expected" in error_of(ModelError, vizlib.load, str(tmp_path / "mine.txt"))


def test_load_of_a_local_folder_never_downloads(tmp_path):
    assert "holds no weights" in error_of(ModelError, vizlib.load, f"local-dir:{tmp_path}")
    assert "is not a weight file" in error_of(ModelError, vizlib.load, f"local-dir:{tmp_path / 'none'}")


def test_load_refuses_architecture_for_a_pretrained_name():
    assert "requires a weight file" in error_of(ModelError, vizlib.load, "resnet50", architecture="resnet18")


def test_load_raises_one_line_for_an_unknown_device():
    message = error_of(ModelError, vizlib.load, "resnet18-imagenette", device="toaster")
    assert message.startswith("resnet18-imagenette cannot be moved to the device 'toaster'")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Replace all download servers by one that accepts connections and never responds, and all caches by empty ones."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "ENDPOINT", address)
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(downloads, "CONNECT_TIMEOUT_S", 0.3)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield tmp_path


@pytest.mark.parametrize("name", ["resnet50", "vit_base_patch16_224", "hf-hub:timm/resnet18.a1_in1k", "hf-hub:nope"])
def test_load_offline_fails_within_seconds_and_names_bundled_models(offline, name):
    started = time.monotonic()
    message = error_of(ModelError, vizlib.load, name)
    assert time.monotonic() - started < 30  # huggingface_hub itself would retry for minutes
    assert message.startswith(f"the weights of {name} are not on this machine, and 127.0.0.1")
    assert message.endswith(
        "available offline: clip-digits, resnet18-imagenette, vit_tiny-imagenet, vit_tiny-imagenette"
    )


def test_load_makes_no_request_if_the_hub_is_set_offline(offline, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(downloads, "is_reachable", lambda url: pytest.fail("a request was made"))
    assert "cannot be reached" in error_of(ModelError, vizlib.load, "resnet50")


def test_load_raises_one_line_for_a_failed_download(offline, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("404 Client Error\n\nfor url: ...")

    monkeypatch.setattr(downloads, "is_reachable", lambda url: True)
    monkeypatch.setattr(timm, "create_model", fail)
    message = error_of(ModelError, vizlib.load, "resnet50")
    assert message == "resnet50 could not be downloaded: 404 Client Error"


def test_load_checks_torchvisions_server_for_torchvisions_weights(offline, monkeypatch):
    urls = []
    monkeypatch.setattr(downloads, "is_reachable", urls.append)
    assert "download.pytorch.org cannot be reached" in error_of(ModelError, vizlib.load, "torchvision/resnet18")
    assert urls == [torchvision.models.ResNet18_Weights.DEFAULT.url]


class NotFoundHandler(BaseHTTPRequestHandler):
    """Responds to every request with status 404."""

    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *arguments):
        pass


def test_is_reachable_accepts_any_response(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), NotFoundHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert downloads.is_reachable(address)
        thread.join()
    assert not downloads.is_reachable(address), "the server has stopped"


def test_load_uses_cached_weights_offline(data, offline, monkeypatch, cheetah):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    for repository, files in (
        ("timm/resnet18.a1_in1k", []),
        ("me/mine", [("config.json", json.dumps({"architecture": "resnet18", "num_classes": 1000}))]),
    ):
        folder = offline / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123")
        shutil.copy(data / "weights" / "resnet18.in1k.safetensors", snapshot / "model.safetensors")
        for name, text in files:
            (snapshot / name).write_text(text)
    for name in ("resnet18", "resnet18.a1_in1k", "hf-hub:me/mine"):
        assert vizlib.load(name).predict(cheetah)[0].label.startswith("cheetah")


def test_load_torchvision_has_torchvisions_labels_and_preprocessing(data, offline, cheetah):
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    path = offline / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    path.parent.mkdir()
    torch.save(safetensors.torch.load_file(data / "weights" / "resnet18.in1k.safetensors"), path)
    model = vizlib.load("torchvision/resnet18")
    assert model.labels == tuple(weights.meta["categories"])
    assert model.predict(cheetah)[0].label == "cheetah"
    assert torch.equal(model.tensor(cheetah), weights.transforms()(cheetah).unsqueeze(0))


@pytest.mark.parametrize(
    "weights",
    [
        torchvision.models.ResNet50_Weights.IMAGENET1K_V1,  # crop 224 of 256, bilinear
        torchvision.models.ResNet50_Weights.IMAGENET1K_V2,  # 224 of 232
        torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1,  # bicubic
        torchvision.models.Inception_V3_Weights.IMAGENET1K_V1,  # 299 of 342
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1,  # the whole shorter side
    ],
    ids=str,
)
def test_from_torchvision_is_bitwise_equal(weights, cheetah, tower):
    transforms = weights.transforms()
    preprocessing = TimmPreprocessing.from_torchvision(transforms)
    for photo in (cheetah, tower, cheetah.rotate(90, expand=True), cheetah.resize((301, 97))):
        assert torch.equal(preprocessing.tensor(photo), transforms(photo).unsqueeze(0))


def test_load_file_with_torchvision_architecture_has_torchvisions_preprocessing(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path / "mine.pth")
    model = vizlib.load(tmp_path / "mine.pth", architecture="torchvision/resnet18", labels=["a", "b", "c"])
    assert isinstance(model.preprocessing, TimmPreprocessing)
    assert model.preprocessing.interpolation == "bilinear"
    assert model.family is not None
    assert model.family.name == "ResNet"


# ---------------------------------------------------------------------------------- wrapping


def test_wrap_timm_network_has_its_preprocessing_and_imagenets_labels():
    module = timm.create_model("test_vit").eval()
    model = vizlib.wrap(module)
    assert model.preprocessing.input_size == (160, 160)
    assert model.labels[0] == "tench, Tinca tinca"
    assert len(model.labels) == 1000
    unknown = vizlib.wrap(timm.create_model("test_convnext", num_classes=1000).eval())
    assert unknown.family is None
    assert unknown.labels[1] == "goldfish, Carassius auratus"


def test_wrap_own_network_has_numbered_classes_and_imagenets_preprocessing():
    model = vizlib.wrap(network())
    assert model.labels == tuple(f"class {i}" for i in range(6))
    assert model.name == "Sequential"
    assert model.preprocessing == TimmPreprocessing.from_config({})
    assert vizlib.wrap(network(classes=1000), preprocessing=SMALL).labels[7] == "class 7"


def test_wrap_uses_the_given_arguments():
    labels = list("uvwxyz")
    preprocessing = TimmPreprocessing.from_config(SMALL)
    model = vizlib.wrap(network(), preprocessing=preprocessing, labels=labels, name="mine")
    assert (model.name, model.labels, model.preprocessing) == ("mine", tuple(labels), preprocessing)
    assert vizlib.wrap(network(), preprocessing=SMALL).preprocessing == preprocessing


class ResizePreprocessing:
    """A minimal `Preprocessing` of one's own: resize to the input size, scale to -1 ... 1."""

    input_size = (48, 64)
    mean = std = (0.5, 0.5, 0.5)

    def tensor(self, photo):
        pixels = np.asarray(photo.resize((64, 48)), dtype=np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)[None] * 2 - 1

    def geometry(self, photo):
        return TimmPreprocessing.from_config({"input_size": (48, 64), "crop_mode": "squash"}).geometry(photo)

    def denormalise(self, tensor):
        pixels = (tensor.detach().reshape(3, 48, 64) + 1) * 127.5
        return Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy())


def test_wrap_takes_any_object_with_the_members_of_preprocessing(cheetah):
    preprocessing = ResizePreprocessing()
    assert isinstance(preprocessing, Preprocessing)
    assert isinstance(TimmPreprocessing.from_config({}), Preprocessing)
    model = vizlib.wrap(network(), preprocessing=preprocessing)
    assert model.preprocessing is preprocessing
    assert repr(model) == "<Model Sequential: Sequential, 6 classes, input 48 × 64>"
    assert model.tensor(cheetah).shape == (1, 3, 48, 64)
    assert {layer.name: layer.shape for layer in model.layers}["0"] == (8, 48, 64)
    assert vizlib.explain(model, cheetah, "saliency").heat.shape == (48, 64)
    assert model.preprocessing.denormalise(model.tensor(cheetah)).size == (64, 48)


@pytest.mark.parametrize("make", [torchvision.models.resnet18, resnet18])
def test_wrap_counts_the_outputs_of_a_replaced_head(make):
    module = make().eval()
    module.fc = nn.Linear(512, 4)
    assert vizlib.wrap(module, preprocessing=SMALL).labels == ("class 0", "class 1", "class 2", "class 3")


def test_wrap_refuses_labels_of_another_number():
    message = error_of(ModelError, vizlib.wrap, network(), preprocessing=SMALL, labels=["one", "two"])
    assert message == "Sequential has 6 outputs, but 2 labels were given; give one for each output"


def test_wrap_uses_labels_recorded_with_the_network():
    module: Any = timm.create_model("test_vit", num_classes=2).eval()
    module.pretrained_cfg = {**module.pretrained_cfg, "label_names": ["n1", "n2"], "label_descriptions": {"n1": "owl"}}
    assert vizlib.wrap(module).labels == ("owl", "n2")


class OutputOf(nn.Module):
    """A network whose output is a function of its logits."""

    def __init__(self, convert) -> None:
        super().__init__()
        self.network, self.convert = network(), convert

    def forward(self, image):
        return self.convert(self.network(image))


def test_wrap_reads_logits_from_an_output_object(plain, cheetah):
    module = OutputOf(lambda logits: SimpleNamespace(logits=logits, hidden_states=None)).eval()
    model = vizlib.wrap(module, preprocessing=SMALL)
    assert model.predict(cheetah) == plain.predict(cheetah)
    assert vizlib.explain(model, cheetah, "saliency").heat.any()


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda logits: {"scores": logits}, "returns a dictionary with scores"),
        (lambda logits: (logits, logits), "returns a tuple of a tensor of shape (1, 6), a tensor of shape (1, 6)"),
        (lambda logits: logits[0], "returns a tensor of shape (6,)"),
        (lambda logits: logits[:, :0], "returns a tensor of shape (1, 0)"),
        (lambda logits: logits[..., None], "returns a tensor of shape (1, 6, 1)"),
    ],
)
def test_wrap_describes_an_output_that_is_not_logits(convert, message):
    text = error_of(ModelError, vizlib.wrap, OutputOf(convert).eval(), preprocessing=SMALL)
    assert message in text
    assert "expected one logit per class; give output=" in text


class Faulty(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, image):
        raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError("broken\nin two"), KeyError("pixel_values"), AttributeError("no x"), ZeroDivisionError()]
)
def test_wrap_translates_any_exception_of_the_network(error):
    text = error_of(ModelError, vizlib.wrap, Faulty(error))
    assert text.startswith("Faulty cannot be run on a 224 × 224 RGB input: ")
    assert ("broken" if isinstance(error, RuntimeError) else type(error).__name__) in text


def test_wrap_reports_the_reason_of_a_grayscale_network():
    assert "3 channels" in error_of(ModelError, vizlib.wrap, nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()))


def test_wrap_takes_a_network_without_parameters(cheetah):
    model = vizlib.wrap(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), preprocessing=SMALL)
    assert len(model.predict(cheetah, top=99)) == len(model.labels) == 12
    assert vizlib.explain(model, cheetah, "saliency").heat.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensor_has_the_dtype_of_the_network(dtype, plain, cheetah):
    model = vizlib.wrap(network().to(dtype), preprocessing=SMALL)
    assert model.tensor(cheetah).dtype == dtype
    assert model.predict(cheetah)[0].probability == pytest.approx(plain.predict(cheetah)[0].probability, abs=0.01)
    assert vizlib.explain(model, cheetah, "grad-cam", layer="3").heat.dtype == torch.float32


def test_wrap_refuses_compiled_and_data_parallel_networks():
    compiled_part: Any = network()
    compiled_part[3] = torch.compile(compiled_part[3])
    in_place = network()
    in_place.compile()
    for module in (torch.compile(network()), compiled_part, in_place):
        assert "compiled" in error_of(ModelError, vizlib.wrap, module, preprocessing=SMALL)
    assert "wrap its .module" in error_of(ModelError, vizlib.wrap, nn.DataParallel(network()), preprocessing=SMALL)


def test_wrap_refuses_an_exported_program():
    program = torch.export.export(network().eval(), (torch.zeros(1, 3, 32, 32),))
    message = error_of(ModelError, vizlib.wrap, program, preprocessing=SMALL)
    assert message == "expected an nn.Module, not ExportedProgram; wrap the network that was exported"


@pytest.mark.slow
def test_wrap_refuses_sharded_networks(tmp_path):
    """In a process of its own, as the group of processes that sharding needs stays for the rest of a process."""
    code = f"""
import torch, torch.distributed, vizlib
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/group", rank=0, world_size=1)
mesh = torch.distributed.init_device_mesh("cpu", (1,))
make = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
cpu = torch.device("cpu")
for network in (FullyShardedDataParallel(make(), device_id=cpu), fully_shard(make(), mesh=mesh)):
    try:
        vizlib.wrap(network, preprocessing={{"input_size": (3, 32, 32)}})
    except vizlib.ModelError as error:
        print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert len(output.splitlines()) == 2
    assert all("load its full state dict" in line for line in output.splitlines())


def test_a_network_traced_by_fx_has_the_maps_of_the_network(cheetah):
    module: Any = timm.create_model("test_resnet", num_classes=5).eval()
    traced = torch.fx.symbolic_trace(module).eval()
    preprocessing = SMALL | {"mean": 0.5, "std": 0.5, "interpolation": "bilinear"}
    for method, options in (("grad-cam", {"layer": "layer4.0.act2", "relu": False}), ("saliency", {})):
        expected, found = (
            vizlib.explain(vizlib.wrap(net, preprocessing=preprocessing), cheetah, method, 1, **options)
            for net in (module, traced)
        )
        assert torch.allclose(found.heat, expected.heat, atol=1e-6)
        assert expected.heat.any()


def test_predict_in_training_mode_equals_evaluation_mode_and_changes_nothing(cheetah):
    module = timm.create_model("test_resnet", drop_rate=0.5).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    model = vizlib.wrap(module)
    predictions = [model.predict(cheetah) for _ in range(2)]
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert predictions[0] == predictions[1] == vizlib.wrap(module.eval()).predict(cheetah)


# ---------------------------------------------------------------------------------- networks of no known family


def test_stages_of_an_unknown_network_are_the_last_layer_per_resolution(plain):
    assert plain.family is None
    assert plain.stages == ("1", "3")
    assert plain.cam_layer == "3"


@pytest.mark.parametrize(("name", "deepest"), [("squeezenet1_1", (13, 13)), ("mobilenet_v3_small", (7, 7))])
def test_stages_of_unknown_torchvision_networks_go_from_shallow_to_deep(name, deepest):
    module = torchvision.models.get_model(name, weights=None).eval()
    model = vizlib.wrap(module)
    shapes = {layer.name: layer.shape for layer in model.layers}
    sizes = [shapes[stage][1:] for stage in model.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[-1] == deepest


def test_stages_exclude_channels_last_and_flat_outputs():
    class ToChannelsLast(nn.Module):
        def forward(self, image):
            return image.permute(0, 2, 3, 1)

    class ToChannelsFirst(nn.Module):
        def forward(self, image):
            return image.permute(0, 3, 1, 2)

    model = vizlib.wrap(
        nn.Sequential(ToChannelsLast(), ToChannelsFirst(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), preprocessing=SMALL
    )
    assert model.stages == ("1",)
    flat = vizlib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)), preprocessing=SMALL)
    assert flat.stages == ()
    assert flat.cam_layer is None
    assert "grad-cam" not in vizlib.list_methods(flat)


def test_grad_cam_of_an_unknown_network_equals_its_formula(plain, cheetah):
    image = plain.tensor(cheetah)
    module = plain.module
    activation = module[:4](image).detach().requires_grad_()
    logits = module[4:](activation)
    target = int(logits.argmax())
    (gradient,) = torch.autograd.grad(logits[0, target], activation)
    heat = torch.zeros(activation.shape[2:])
    for channel in range(activation.shape[1]):
        heat += gradient[0, channel].mean() * activation[0, channel].detach()
    assert torch.allclose(vizlib.explain(plain, cheetah, "grad-cam").heat, heat.clamp(min=0), atol=1e-6)


# ---------------------------------------------------------------------------------- predictions and targets


def test_predict_equals_softmax_by_hand_in_descending_order(resnet, cheetah):
    with torch.no_grad():
        logits = resnet.module(resnet.tensor(cheetah))[0].tolist()
    total = math.fsum(math.exp(logit) for logit in logits)
    predictions = resnet.predict(cheetah, top=12)
    expected = sorted(range(1000), key=lambda i: -logits[i])[:12]
    assert [p.index for p in predictions] == expected
    for p in predictions:
        assert p.probability == pytest.approx(math.exp(logits[p.index]) / total, rel=1e-5)
        assert (p.logit, p.label) == (logits[p.index], resnet.labels[p.index])


@pytest.mark.parametrize(("top", "count"), [(1, 1), (6, 6), (7, 6), (1000, 6), (0, 1), (-3, 1)])
def test_predict_clips_top_to_the_number_of_classes(plain, cheetah, top, count):
    predictions = plain.predict(cheetah, top=top)
    assert len(predictions) == count
    assert [p.probability for p in predictions] == sorted((p.probability for p in predictions), reverse=True)
    if count == 6:
        assert sum(p.probability for p in predictions) == pytest.approx(1)


def test_resolve_target_takes_index_label_or_name(resnet):
    logits = torch.zeros(1, 1000)
    logits[0, 5] = 1
    assert resnet.resolve_target(None, logits) == 5
    for target in (293, "293", " 293 ", np.int64(293), "cheetah", "CHEETAH", " chetah ", "Acinonyx jubatus", "+293"):
        assert resnet.resolve_target(target, logits) == 293
    assert resnet.resolve_target("cheetah, chetah, Acinonyx jubatus", logits) == 293


def test_resolve_target_names_the_candidates_of_an_ambiguous_name(resnet):
    message = error_of(TargetError, resnet.resolve_target, "crane", torch.zeros(1, 1000))
    assert message == "'crane' names 2 classes: 134 (crane), 517 (crane); give the number"


def test_resolve_target_takes_the_label_of_another_network(resnet):
    logits = torch.zeros(1, 1000)
    assert resnet.resolve_target("tench, some fish, Tinca tinca", logits) == 0
    with pytest.raises(vizlib.TargetError, match="names 2 classes"):
        resnet.resolve_target("goldfish, tench", logits)


def test_resolve_target_prefers_a_whole_label_to_a_name(resnet):
    assert resnet.labels[638:640] == ("maillot", "maillot, tank suit")
    assert resnet.resolve_target("maillot", torch.zeros(1, 1000)) == 638
    assert resnet.resolve_target("tank suit", torch.zeros(1, 1000)) == 639


@pytest.mark.parametrize("target", [1000, -1, "1000", "-1"])
def test_resolve_target_states_the_range_of_indices(resnet, target):
    message = error_of(TargetError, resnet.resolve_target, target, torch.zeros(1, 1000))
    assert message == f"there is no class {target}; this model's classes are 0 to 999"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cheeta", "did you mean cheetah"),
        ("golden retreiver", "golden retriever"),
        ("²", "has no class"),
        ("--5", "no"),
    ],
)
def test_resolve_target_suggests_similar_names(resnet, target, message):
    assert message in error_of(TargetError, resnet.resolve_target, target, torch.zeros(1, 1000))


def test_resolve_target_prefers_a_label_to_a_number():
    model = vizlib.wrap(network(classes=2), preprocessing=SMALL, labels=["3", "7"])
    logits = torch.zeros(1, 2)
    assert [model.resolve_target(target, logits) for target in ("3", "7", "1", 0)] == [0, 1, 1, 0]


def test_explain_raises_target_error_for_an_unknown_class(plain, cheetah):
    assert "did you mean class 1" in error_of(TargetError, vizlib.explain, plain, cheetah, "saliency", target="klass 1")


def test_load_takes_a_path_with_spaces_and_non_ascii_letters(tmp_path):
    path = Path(tmp_path, "a b", "ü.safetensors")
    path.parent.mkdir()
    shutil.copy(checkpoint_files.list_bundled()["resnet18-imagenette"], path)
    assert len(vizlib.load(path, architecture="resnet18").labels) == 10
