"""Maps of networks that cannot be copied by their registered modules alone, or that training has left in a state."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import vizlib

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
SIZE = {"input_size": (3, 32, 32)}
SETTINGS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "grad-cam": {},
    "smoothgrad": {"samples": 2},
    "integrated-gradients": {"steps": 4},
    "occlusion": {"window": 16, "stride": 16},
    "rise": {"masks": 16},
}


class Net(nn.Module):
    """Two convolutions with batch normalisation and dropout, and a classifier of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(8, 3)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images))))))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images).mean((2, 3))))


def make_net(make: Callable[[], Any] = Net) -> Any:
    torch.manual_seed(0)
    net = make()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after training
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 2)
    return net.eval()


def compute_maps(model: vizlib.Model) -> dict[str, Tensor]:
    return {
        method: vizlib.explain(model, PHOTO, method, target=1, **settings).heat for method, settings in SETTINGS.items()
    }


@functools.cache
def expected_maps() -> dict[str, Tensor]:
    return compute_maps(vizlib.wrap(make_net(), preprocessing=SIZE))


def check_maps(model: vizlib.Model, expected: dict[str, Tensor] | None = None) -> None:
    for method, heat in compute_maps(model).items():
        torch.testing.assert_close(heat, (expected or expected_maps())[method], rtol=1e-3, atol=1e-5, msg=method)


def copy_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_unchanged(net: nn.Module, state: dict[str, Tensor], modes: list[bool]) -> None:
    assert [name for name, value in net.state_dict().items() if not torch.equal(value, state[name])] == []
    assert [part.training for part in net.modules()] == modes


# ------------------------------------------------------------------------------------ references outside the modules


class ListNet(Net):
    """Runs its modules from a list, which PyTorch does not register."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Any] = [self.conv1, self.bn1, F.relu, self.conv2, self.bn2, F.relu]

    def features(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images


class DictNet(Net):
    """Runs its modules from a dictionary of bound methods."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = {"stem": (self._stem,), "body": [self.bn2]}

    def _stem(self, images: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(images)))

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.branches["body"][0](self.conv2(self.branches["stem"][0](images))))


def replace_by_closure(net: Net) -> None:
    forward = net.forward
    vars(net)["forward"] = lambda images: forward(images)


def replace_by_keyword_default(net: Net) -> None:
    def forward(images: Tensor, *, features: Any = net.features) -> Tensor:
        return net.head(net.dropout(features(images).mean((2, 3))))

    vars(net)["forward"] = forward


def replace_by_bound_method(net: Net) -> None:
    def normalise(self: nn.BatchNorm2d, images: Tensor) -> Tensor:
        return F.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias, self.training)

    for part in (net.bn1, net.bn2):
        vars(part)["forward"] = types.MethodType(normalise, part)


def replace_by_partial(net: Net) -> None:
    def run(owner: Net, images: Tensor) -> Tensor:
        return Net.forward(owner, images)

    vars(net)["forward"] = functools.partial(run, net)


@pytest.mark.parametrize("make", [ListNet, DictNet, lambda: torch.fx.symbolic_trace(Net())])
def test_a_network_in_training_mode_that_holds_its_parts_elsewhere_is_copied(make):
    net = make_net(make).train()
    state, modes = copy_state(net), [part.training for part in net.modules()]
    check_maps(vizlib.wrap(net, preprocessing=SIZE))
    assert_unchanged(net, state, modes)


@pytest.mark.parametrize(
    "change", [replace_by_closure, replace_by_keyword_default, replace_by_bound_method, replace_by_partial]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_forward_that_was_replaced_runs_the_parts_of_the_copy(change, training):
    net = make_net().train(training)
    change(net)
    state, modes = copy_state(net), [part.training for part in net.modules()]
    check_maps(vizlib.wrap(net, preprocessing=SIZE))
    assert_unchanged(net, state, modes)


class Runner:
    """An object that is no module and runs one."""

    def __init__(self, module: nn.Module, method: str = "__call__") -> None:
        self.module, self.method = module, method

    def __call__(self, images: Tensor) -> Tensor:
        return getattr(self.module, self.method)(images)


class RunnerNet(Net):
    """Reaches its first batch normalisation through an object that no copy can look into."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner(self.bn1)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.runner(self.conv1(images))))))


def replace_by_object(net: Net) -> None:
    vars(net)["forward"] = Runner(make_net(), "forward")


def replace_convolution_by_object(net: Net) -> None:
    vars(net.conv2)["forward"] = Runner(net.conv2, "plain_forward")
    vars(net.conv2)["plain_forward"] = types.MethodType(nn.Conv2d.forward, net.conv2)


def test_what_cannot_be_copied_is_refused_in_training_mode_and_right_in_evaluation_mode():
    for make, change in ((RunnerNet, None), (Net, replace_convolution_by_object)):
        net = make_net(make)
        if change:
            change(net)
        check_maps(vizlib.wrap(net, preprocessing=SIZE))
        net.train()
        state, modes = copy_state(net), [part.training for part in net.modules()]
        with pytest.raises(vizlib.ModelError, match=r"call \.eval\(\) on the network before it is explained"):
            vizlib.wrap(net, preprocessing=SIZE)
        assert_unchanged(net, state, modes)


def test_a_module_that_eval_does_not_reach_is_told_and_keeps_its_statistics():
    net, hidden = make_net(), nn.BatchNorm2d(8)
    vars(net)["forward"] = lambda images, norm=[hidden]: net.head(F.relu(norm[0](net.conv1(images))).mean((2, 3)))
    state = copy_state(hidden)
    with pytest.raises(vizlib.ModelError, match=r"a BatchNorm2d in training mode .* where \.eval\(\) does not reach"):
        vizlib.wrap(net, preprocessing=SIZE)
    assert_unchanged(hidden, state, [True])


def test_a_forward_replaced_after_the_model_was_made_is_checked_again():
    net = make_net().train()
    model = vizlib.wrap(net, preprocessing=SIZE)
    replace_by_object(net)
    with pytest.raises(vizlib.ModelError, match="the forward of a Net was replaced by a Runner"):
        vizlib.explain(model, PHOTO, "saliency")


# --------------------------------------------------------------------------------------------------- folded copies


class BorrowingNet(Net):
    """Normalises the output of its first convolution a second time, outside of the modules."""

    def features(self, images: Tensor) -> Tensor:
        outputs = self.bn1(self.conv1(images))
        again = F.conv2d(images, self.conv1.weight, self.conv1.bias, stride=2, padding=1)
        return F.relu(self.bn2(self.conv2(F.relu(outputs + again))))


class PlainMethods(Net):
    """Calls `forward` of its parts, where no hook sees it."""

    def features(self, images: Tensor) -> Tensor:
        outputs = F.relu(self.bn1.forward(self.conv1.forward(images)))
        return F.relu(self.bn2(self.conv2(outputs)))


class SpectralNet(Net):
    """Normalises the weights of its first convolution; each pass in training mode updates two vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = parametrizations.spectral_norm(self.conv1)


class WeightNormNet(Net):
    """Computes the weights of its second convolution before each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = parametrizations.weight_norm(self.conv2)


@pytest.mark.parametrize("make", [BorrowingNet, PlainMethods, SpectralNet, WeightNormNet])
def test_methods_of_many_passes_explain_the_network_itself(make, monkeypatch):
    """The expected maps run the network itself in every pass."""
    net = make_net(make)
    with monkeypatch.context() as patch:
        patch.setattr("vizlib.models.inference.batched_inference.FOLDED_COPY_BUDGET_FRACTION", 0)
        expected = compute_maps(vizlib.wrap(net, preprocessing=SIZE))
    check_maps(vizlib.wrap(net, preprocessing=SIZE), expected)
    net.train()
    state, modes = copy_state(net), [part.training for part in net.modules()]
    check_maps(vizlib.wrap(net, preprocessing=SIZE), expected)
    assert_unchanged(net, state, modes)


def test_a_parametrisation_registered_after_eval_is_no_training_mode():
    net = make_net()
    net.conv1 = parametrizations.weight_norm(net.conv1)
    assert "training mode" not in " ".join(vizlib.explain(vizlib.wrap(net, preprocessing=SIZE), PHOTO).notes)


# ---------------------------------------------------------------------------------------- what training has left on


class FlaggedNet(Net):
    """Checkpoints its gradients where a flag says so, as timm and transformers do."""

    gradient_checkpointing: bool

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = True

    def forward(self, images: Tensor) -> Tensor:
        if self.gradient_checkpointing:  # not by calling its parts, as in timm's ResNet
            images = checkpoint(
                lambda x: F.relu(self.bn1(F.conv2d(x, self.conv1.weight, self.conv1.bias, 2, 1))), images
            )
            return self.head(F.relu(self.bn2(self.conv2(images))).mean((2, 3)))
        return super().forward(images)


class CheckpointingNet(nn.Module):
    """Checkpoints its backbone in every pass."""

    def __init__(self, backbone: nn.Module, use_reentrant: bool) -> None:
        super().__init__()
        self.backbone, self.use_reentrant = backbone, use_reentrant

    def forward(self, images: Tensor) -> Any:
        return checkpoint(self.backbone, images, use_reentrant=self.use_reentrant)


def test_checkpointing_by_a_flag_is_off_while_a_network_is_explained():
    net = make_net(FlaggedNet)
    model = vizlib.wrap(net, preprocessing=SIZE)
    assert vizlib.explain(model, PHOTO, "grad-cam", layer="conv1").heat.any()
    check_maps(model)
    assert net.gradient_checkpointing


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_that_cannot_be_turned_off_is_right_or_told():
    model = vizlib.wrap(CheckpointingNet(make_net(), use_reentrant=False).eval(), preprocessing=SIZE)
    for method in ("saliency", "grad-cam"):
        torch.testing.assert_close(vizlib.explain(model, PHOTO, method, target=1).heat, expected_maps()[method])
    model = vizlib.wrap(CheckpointingNet(make_net(), use_reentrant=True).eval(), preprocessing=SIZE)
    with pytest.raises(vizlib.ModelError, match=r"gradient checkpointing.*turn checkpointing off"):
        vizlib.explain(model, PHOTO, "saliency")


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        lambda: torch.device("meta"),
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode,
        torch.no_grad,
    ],
    ids=["float64", "bfloat16", "device", "autocast", "inference", "no_grad"],
)
def test_settings_of_the_caller_do_not_change_the_maps(setting):
    net, expected = make_net(), expected_maps()
    with setting():
        check_maps(vizlib.wrap(net, preprocessing=SIZE), expected)


@pytest.mark.slow
def test_stochastic_depth_and_channels_last_do_not_change_the_maps():
    make = functools.partial(timm.create_model, "resnet10t", num_classes=3, drop_path_rate=0.5)
    expected = compute_maps(vizlib.wrap(make_net(make), preprocessing=SIZE))
    net = make_net(make).train().to(memory_format=torch.channels_last)
    check_maps(vizlib.wrap(net, preprocessing=SIZE), expected)
