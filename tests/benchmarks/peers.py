"""The time of methods that other libraries have too, relative to vizlib: Grad-CAM, saliency, integrated gradients, ...

Each of the packages that it compares with is optional; for one that is not installed it prints a sentence:

- captum, grad-cam (imported as pytorch_grad_cam) and torchcam, which the extra `peers` installs;
- zennit, which no extra installs: `pip install zennit`.

All libraries compute the same method of the same frozen network in single precision, with the same class, baseline,
window and number of steps. They are timed in turn, and the median of each is divided by that of vizlib. The photo is
opened and preprocessed before anything is timed. vizlib's time includes its notes; the peers get a tensor and return a
tensor. Rank correlations show that the same map was computed; each map is averaged to the resolution of vizlib's.

Where the processor supports bfloat16, occlusion of vizlib has a second row, for the precision that it has by default.

`--state` prints another table instead: what is left on a small network after one map, and how many of 40 maps are
wrong where two threads use one network at the same time. Each library runs in a process of its own, which may crash.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import timm
import torch
import torch.nn.functional as F
from common import load_photos, load_resnet, parse_options, print_table, spearman, time_alternately
from torch import Tensor

import vizlib
from vizlib.models.inference.batched_inference import benefits_from_bfloat16
from vizlib.models.preprocessing import TimmPreprocessing

PACKAGES = {"captum": "captum", "pytorch_grad_cam": "grad-cam", "torchcam": "torchcam", "zennit": "zennit"}
PACKAGES["quantus"] = "quantus"  # import name -> name of the package
COLUMNS = ("method", "library", "settings", "time (min–max)", "÷ vizlib", "rank correlation with vizlib")
LAYER = "layer4"
WINDOW = 32
DELETION_STEPS = 48  # as many values in each, also on one colour, as Quantus requires of 224 × 224 pixels


@dataclass(frozen=True)
class Work:
    """What all libraries compute.

    Attributes:
        model: The network for vizlib.
        module: A copy of the network for the peers, some of which change it.
        photo: The photo.
        image: Its input tensor.
        target: Index of the class.
        steps: Steps of integrated gradients.
        stride: Distance between two windows of occlusion, in pixels.
    """

    model: vizlib.Model
    module: torch.nn.Module
    photo: Any
    image: Tensor
    target: int
    steps: int
    stride: int

    def make_input(self) -> Tensor:
        """Return an input for a peer: a leaf that requires a gradient, as the network is frozen."""
        return self.image.detach().clone().requires_grad_()

    def make_one_hot(self, output: Tensor) -> Tensor:
        """Return the weights of the outputs that zennit explains."""
        return F.one_hot(torch.tensor([self.target], device=output.device), output.shape[1]).to(output)


@dataclass(frozen=True)
class Peer:
    """One way in which a library computes a method.

    Attributes:
        library: Its import name, or `"vizlib"`.
        settings: What distinguishes it from the others of the method.
        run: Computes a map, "h w".
    """

    library: str
    settings: str
    run: Callable[[], Tensor]


def main() -> None:
    """Print the table."""
    more = {
        "only": ("", "name of a method: the rows of it alone"),
        "state": (False, "print what is left on a network, and the results of two threads"),
        "threads": ("", "used by --state: import name of the library whose wrong maps are counted"),
    }
    options = parse_options(__doc__, repeats=5, **more)
    if options.threads:
        print(_count_wrong_maps(*STATE_MAPS[options.threads]))
        return
    if options.only not in ("", *METHODS):
        raise SystemExit(f"--only takes {', '.join(METHODS)}, not {options.only!r}")
    libraries = {name: module for name in PACKAGES if (module := _import_package(name)) is not None}
    versions = ", ".join(f"{PACKAGES[name]} {importlib.metadata.version(PACKAGES[name])}" for name in libraries)
    if options.state:
        rows = [_check_state(name, maps[0]) for name, maps in STATE_MAPS.items() if name in ("vizlib", *libraries)]
        print_table(STATE_COLUMNS, rows, options, f"ResNet-18 at 64 px, random weights; {versions or 'no peers'}.")
        return
    model, photo = load_resnet(options.device, "resnet18" if options.quick else "resnet50"), load_photos()[0]
    image = model.tensor(photo)
    work = Work(
        model=model,
        module=copy.deepcopy(model.module),
        photo=photo,
        image=image,
        target=model.predict(photo, top=1)[0].index,
        steps=4 if options.quick else 50,
        stride=32 if options.quick else 16,
    )
    rows = []
    with patch.object(TimmPreprocessing, "tensor", lambda self, photo: image):
        for name, make_peers in METHODS.items():
            if options.only in ("", name):
                peers = [peer for peer in make_peers(work) if peer.library in ("vizlib", *libraries)]
                rows += _compare(name, peers, options)
    print_table(COLUMNS, rows, options, f"{model.name} at 224 px, {options.repeats} repeats; {versions or 'no peers'}.")


def _import_package(name: str) -> Any:
    """Return a package by its import name; `None`, and a printed sentence, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{PACKAGES[name]} is not installed ({error}), so it is left out: pip install {PACKAGES[name]}")
        return None


def _compare(method: str, peers: list[Peer], options: Any) -> Iterator[tuple]:
    """Time the libraries that have a method, vizlib's default first, and yield a row for each."""
    timings = time_alternately(options.repeats, options.device, **{str(i): peer.run for i, peer in enumerate(peers)})
    expected = peers[0].run()
    for index, peer in enumerate(peers):
        timing, heat = timings[str(index)], peer.run() if index else expected
        ratio = f"{timing.median / timings['0'].median:.2f}" if index else "1"
        similarity = f"{_correlate(heat, expected):.3f}" if index else ""
        library = PACKAGES.get(peer.library, peer.library)
        yield method, library, peer.settings, timing, ratio, similarity


def _correlate(heat: Tensor, expected: Tensor) -> float:
    """Return the rank correlation of a peer's map with vizlib's, in the resolution of the latter."""
    size = expected.shape[0], expected.shape[1]
    return spearman(F.adaptive_avg_pool2d(heat.detach().cpu().float()[None], size)[0], expected)


# ------------------------------------------------------------------------------------------------------- the methods


def _make_saliency(work: Work) -> Iterator[Peer]:
    """Yield the libraries that compute the gradient at the pixels."""
    yield Peer("vizlib", "", _explain(work, "saliency"))

    def run_captum() -> Tensor:
        attr = importlib.import_module("captum.attr")
        return attr.Saliency(work.module).attribute(work.make_input(), target=work.target)[0].amax(0)

    def run_zennit() -> Tensor:
        attributor = importlib.import_module("zennit.attribution").Gradient(work.module)
        return attributor(work.make_input(), work.make_one_hot)[1][0].abs().amax(0)

    yield Peer("captum", "", run_captum)
    yield Peer("zennit", "", run_zennit)


def _make_grad_cam(work: Work) -> Iterator[Peer]:
    """Yield the libraries that compute Grad-CAM at the last stage."""
    yield Peer("vizlib", "", _explain(work, "grad-cam", layer=LAYER))

    def run_captum() -> Tensor:
        attr = importlib.import_module("captum.attr")
        cam = attr.LayerGradCam(work.module, work.module.get_submodule(LAYER))
        return cam.attribute(work.make_input(), target=work.target, relu_attributions=True)[0, 0]

    def run_grad_cam() -> Tensor:
        package = importlib.import_module("pytorch_grad_cam")
        target = package.utils.model_targets.ClassifierOutputTarget(work.target)
        with package.GradCAM(work.module, [work.module.get_submodule(LAYER)]) as cam:
            return torch.from_numpy(cam(work.make_input(), [target]))[0]

    def run_torchcam() -> Tensor:
        methods = importlib.import_module("torchcam.methods")
        with methods.GradCAM(work.module, LAYER) as cam:
            return cam(work.target, work.module(work.make_input()))[0][0]

    yield Peer("captum", "", run_captum)
    yield Peer("pytorch_grad_cam", "map upsampled to the input", run_grad_cam)
    yield Peer("torchcam", "", run_torchcam)


def _make_integrated_gradients(work: Work) -> Iterator[Peer]:
    """Yield the libraries that compute integrated gradients from the mean colour."""
    steps = f"{work.steps} steps"
    yield Peer("vizlib", steps, _explain(work, "integrated-gradients", steps=work.steps, baseline="mean"))

    def run_captum(batch: int | None) -> Tensor:
        method = importlib.import_module("captum.attr").IntegratedGradients(work.module)
        arguments: dict[str, Any] = {"n_steps": work.steps, "internal_batch_size": batch}
        return method.attribute(work.image, baselines=0, target=work.target, **arguments)[0].sum(0)

    def run_zennit() -> Tensor:
        method = importlib.import_module("zennit.attribution").IntegratedGradients
        return method(work.module, n_iter=work.steps)(work.make_input(), work.make_one_hot)[1][0].sum(0)

    yield Peer("captum", f"{steps}, all in one batch (its default)", partial(run_captum, None))
    yield Peer("captum", f"{steps}, batches of 8", partial(run_captum, 8))
    yield Peer("zennit", f"{steps}, one after another", run_zennit)


def _make_occlusion(work: Work) -> Iterator[Peer]:
    """Yield the libraries that compute occlusion with the mean colour."""
    windows = f"windows of {WINDOW} px, stride {work.stride}"
    values = {"window": WINDOW, "stride": work.stride, "baseline": "mean"}
    yield Peer("vizlib", windows, _explain(work, "occlusion", precision="float32", **values))
    if benefits_from_bfloat16(work.model):
        yield Peer("vizlib", f"{windows}, bfloat16 (its default here)", _explain(work, "occlusion", **values))

    def run_captum(batch: int) -> Tensor:
        method = importlib.import_module("captum.attr").Occlusion(work.module)
        arguments = {"sliding_window_shapes": (3, WINDOW, WINDOW), "strides": (3, work.stride, work.stride)}
        heat = method.attribute(work.image, baselines=0, target=work.target, perturbations_per_eval=batch, **arguments)
        return heat[0, 0]

    def run_zennit() -> Tensor:
        attribution = importlib.import_module("zennit.attribution")
        cover = partial(attribution.occlude_independent, fill_fn=torch.zeros_like, invert=True)
        method = attribution.Occlusion(
            work.module, occlusion_fn=cover, window=(WINDOW, WINDOW), stride=(work.stride, work.stride)
        )

        def select_logit(output: Tensor) -> Tensor:
            return output * work.make_one_hot(output)

        return -method(work.image, select_logit)[1][0, 0]  # it returns the score that is left

    yield Peer("captum", f"{windows}, one a pass (its default)", partial(run_captum, 1))
    yield Peer("captum", f"{windows}, 8 a pass", partial(run_captum, 8))
    yield Peer("zennit", f"{windows}, one a pass; windows wrap around", run_zennit)


def _make_deletion(work: Work) -> Iterator[Peer]:
    """Yield the libraries that compute the deletion curve of a map; the curve is returned as a map of one row."""
    attribution = vizlib.explain(work.model, work.photo, "grad-cam", work.target, layer=LAYER)
    heat = F.interpolate(attribution.heat[None, None], work.image.shape[-2:], mode="bilinear", align_corners=False)

    def run_vizlib() -> Tensor:
        curve = vizlib.metrics.deletion(work.model, attribution, steps=DELETION_STEPS)
        return curve.score[None, 3::3]

    def run_quantus() -> Tensor:
        metric = importlib.import_module("quantus").PixelFlipping(
            features_in_step=work.image.numel() // DELETION_STEPS, perturb_baseline=0.0, disable_warnings=True
        )
        arguments = {"a_batch": heat.numpy(), "device": str(work.image.device), "softmax": True}
        curves = metric(work.module, work.image.cpu().numpy(), torch.tensor([work.target]).numpy(), **arguments)
        # It removes the three colours of a pixel one after another, and has no point of the whole photo.
        return torch.tensor(curves, dtype=torch.float32)[:, 2::3]

    yield Peer("vizlib", f"{DELETION_STEPS} steps", run_vizlib)
    yield Peer("quantus", f"{DELETION_STEPS} steps, PixelFlipping", run_quantus)


def _explain(work: Work, method: str, **parameters: Any) -> Callable[[], Tensor]:
    """Return a function that computes a map with vizlib."""
    return lambda: vizlib.explain(work.model, work.photo, method, work.target, **parameters).heat


METHODS: dict[str, Callable[[Work], Iterator[Peer]]] = {
    "saliency": _make_saliency,
    "grad-cam": _make_grad_cam,
    "integrated-gradients": _make_integrated_gradients,
    "occlusion": _make_occlusion,
    "deletion": _make_deletion,
}


# ----------------------------------------------------------------------------------- what is left, and two threads

StateMap = Callable[[torch.nn.Module, Tensor], Tensor]  # from a network and an input to a map
STATE_COLUMNS = ("library", "hooks left", "parameters with .grad", "mode after", "running means", "frozen network")
STATE_COLUMNS += ("wrong maps of two threads",)
CALLS = 20  # of each of two threads
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _make_captum_map(method: str) -> StateMap:
    def run(module: torch.nn.Module, image: Tensor) -> Tensor:
        return getattr(importlib.import_module("captum.attr"), method)(module).attribute(image.clone(), target=1)

    return run


def _make_grad_cam_map(target: int) -> StateMap:
    def run(module: torch.nn.Module, image: Tensor) -> Tensor:
        package = importlib.import_module("pytorch_grad_cam")
        targets = [package.utils.model_targets.ClassifierOutputTarget(target)]
        with package.GradCAM(module, [module.get_submodule(LAYER)]) as cam:
            return torch.from_numpy(cam(image, targets))

    return run


def _make_torchcam_map(target: int) -> StateMap:
    def run(module: torch.nn.Module, image: Tensor) -> Tensor:
        with importlib.import_module("torchcam.methods").GradCAM(module, LAYER) as cam:
            return cam(target, module(image))[0]

    return run


def _make_zennit_map(composite: str) -> StateMap:
    def run(module: torch.nn.Module, image: Tensor) -> Tensor:
        rules = getattr(importlib.import_module("zennit.composites"), composite)() if composite else None
        attributor = importlib.import_module("zennit.attribution").Gradient(module, rules)
        return attributor(image.clone(), torch.eye(10)[[1]])[1]

    return run


def _make_vizlib_map(method: str) -> StateMap:
    def run(module: torch.nn.Module, image: Tensor) -> Tensor:
        model = vizlib.wrap(module, preprocessing={"input_size": (3, 64, 64)}, labels=10)
        return vizlib.explain(model, image[0], method, 1).heat

    return run


STATE_MAPS: dict[str, tuple[StateMap, StateMap]] = {  # what the two threads compute
    "vizlib": (_make_vizlib_map("saliency"), _make_vizlib_map("guided-backprop")),
    "captum": (_make_captum_map("Saliency"), _make_captum_map("GuidedBackprop")),
    "pytorch_grad_cam": (_make_grad_cam_map(1), _make_grad_cam_map(2)),
    "torchcam": (_make_torchcam_map(1), _make_torchcam_map(2)),
    "zennit": (_make_zennit_map(""), _make_zennit_map("GuidedBackprop")),
}


def _make_small_network() -> tuple[torch.nn.Module, Tensor]:
    """Return a network with random weights, and an input that is a photo too."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=10).eval(), torch.rand(1, 3, 64, 64)


def _check_state(library: str, compute: StateMap) -> tuple:
    """Return the row of a library in the table of what is left after a map of a network in training mode."""
    network, image = _make_small_network()
    means = copy.deepcopy(network.state_dict())
    compute(network.train(), image)
    hooks = sum(len(getattr(part, kind)) for part in network.modules() for kind in HOOKS)
    gradients = sum(parameter.grad is not None for parameter in network.parameters())
    changed = any(not torch.equal(value, means[name]) for name, value in network.state_dict().items())
    try:
        compute(_make_small_network()[0].requires_grad_(False), image)
        frozen = "works"
    except RuntimeError as error:
        frozen = f"{type(error).__name__}"
    command = [sys.executable, __file__, "--threads", library]
    counted = subprocess.run(command, capture_output=True, text=True, check=False)
    wrong = counted.stdout.split()[-1] if counted.returncode == 0 else "crash"
    wrong = wrong if wrong == "crash" else f"{wrong} of {2 * CALLS}"
    mode = "training" if network.training else "evaluation"
    return PACKAGES.get(library, library), hooks, gradients, mode, "changed" if changed else "same", frozen, wrong


def _count_wrong_maps(*computations: StateMap) -> int:
    """Return how many maps differ from those of one thread, or raise, where two threads use one network."""
    torch.set_num_threads(1)
    network, image = _make_small_network()
    expected = [compute(network, image) for compute in computations]
    wrong = []

    def run(compute: StateMap, correct: Tensor) -> None:
        for _ in range(CALLS):
            with contextlib.suppress(RuntimeError):
                if torch.allclose(compute(network, image), correct, atol=1e-6 * correct.abs().max().item()):
                    continue
            wrong.append(compute)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(computations, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


if __name__ == "__main__":
    main()
