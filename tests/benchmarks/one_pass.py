"""The time of `explain_all`, relative to one forward and one backward pass, and to peers that run passes for each map.

The photo is opened and preprocessed before anything is timed. The lower bound of any gradient method is one forward
pass and the gradient of the top logit with respect to the pixels, of the same frozen network.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from captum.attr import InputXGradient, Saliency
from common import (
    check_at_least,
    check_at_most,
    load_photos,
    load_resnet,
    make_vit,
    parse_options,
    print_table,
    synchronize,
    time_alternately,
)
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import vizlib
from vizlib.attribution import explain
from vizlib.capture.recorder import Recording
from vizlib.models.families.layouts import TokenLayout
from vizlib.models.preprocessing import TimmPreprocessing

PIXEL_METHODS = {"saliency": Saliency, "input-x-gradient": InputXGradient}
CAM_METHODS = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "xgradcam": XGradCAM,
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
}
PEER_BLOCKS = 3  # transformer blocks at which the peers are timed; their time is scaled to all blocks


def main() -> None:
    """Print the table."""
    options = parse_options(__doc__, repeats=15, profile=(False, "print the time of each part of explain_all"))
    rows, notes, profiles = [], [], []
    for model in (load_resnet(options.device), make_vit(options.device)):
        rows += _make_rows(model, options, notes)
        if options.profile:
            profiles += _profile(model, options)
    print_table(("network", "work", "time (min–max)", "ratio", "goal", "met"), rows, options, *notes)
    if profiles:
        print_table(("network", "part of explain_all", "time", "share"), profiles, options)


def _make_rows(model: vizlib.Model, options, notes: list[str]) -> list[tuple]:
    with _fix_input(model) as (photo, image):
        attributions = vizlib.explain_all(model, photo)
        run = vizlib.run_for_all(model, photo)
        second_class = int(run.logits[0].argsort(descending=True)[1])
        timings = time_alternately(
            options.repeats,
            options.device,
            passes=partial(_compute_gradient, model, image),
            vizlib=lambda: vizlib.explain_all(model, photo),
            second_class=lambda: vizlib.explain_all(model, run=run, target=second_class),
        )
        pixels, cams, scale, peer_maps = _make_peers(model, image, attributions, quick=options.quick)
        peers = time_alternately(
            max(1, options.repeats // 5),
            options.device,
            vizlib=lambda: vizlib.explain_all(model, photo),
            pixels=pixels,
            cams=cams,
        )
    peer = peers["pixels"].add(peers["cams"].scale(scale))
    if scale != 1:
        notes.append(
            f"{model.name}: the class activation maps of the peers were timed at one layer in {scale:g}, and scaled."
        )
    maps = sum(len(attribution.by_layer) or 1 for attribution in attributions.values())
    ratio, second_ratio = (timings[name].median / timings["passes"].median for name in ("vizlib", "second_class"))
    peer_ratio = peer.median / peers["vizlib"].median
    title = f"explain_all: {len(attributions)} methods, {maps} maps"
    return [
        (model.name, "one forward and one backward pass", timings["passes"], "1", "", ""),
        (model.name, title, timings["vizlib"], f"{ratio:.3f} × passes", *check_at_most(ratio, 1.15)),
        (
            model.name,
            "another class of the same run, all maps",
            timings["second_class"],
            f"{second_ratio:.3f} × passes",
            "",
            "",
        ),
        (
            model.name,
            f"peers, {peer_maps} of these maps",
            peer,
            f"{peer_ratio:.1f} × explain_all",
            *check_at_least(peer_ratio, 10),
        ),
    ]


@contextlib.contextmanager
def _fix_input(model: vizlib.Model) -> Iterator[tuple]:
    """Yield a photo and its input tensor, which is not preprocessed again inside this block."""
    photo = load_photos()[0]
    image = model.tensor(photo)
    with patch.object(TimmPreprocessing, "tensor", lambda self, photo: image):
        yield photo, image


def _compute_gradient(model: vizlib.Model, image: Tensor) -> Tensor:
    """Return the gradient of the top logit with respect to the pixels."""
    image = image.detach().requires_grad_()
    return torch.autograd.grad(model.module(image)[0].max(), image)[0]


def _make_peers(
    model: vizlib.Model, image: Tensor, attributions: vizlib.AttributionDict, *, quick: bool
) -> tuple[Callable, Callable, float, int]:
    """Return the peers of the methods of `explain_all`.

    They get a frozen copy of the network and an input that requires a gradient, as they are fastest without gradients
    of the weights.

    Returns:
        Functions that compute the maps at the pixels, and at some layers; the ratio of all layers to these layers; the
        number of maps at all layers.
    """
    module = copy.deepcopy(model.module)
    target = next(iter(attributions.values())).target
    stages = model.stages
    layers = stages if len(stages) <= 4 else stages[1 :: len(stages) // PEER_BLOCKS]
    layers = layers[-1:] if quick else layers
    peers = [CAM_METHODS[key] for name in attributions if (key := name.replace("-", "")) in CAM_METHODS]
    reshape = None if model.tokens is None else partial(_reshape_tokens, model.tokens)

    def compute_pixel_maps() -> None:
        for method in PIXEL_METHODS.values():
            method(module).attribute(image.detach().requires_grad_(), target=target)

    def compute_cams() -> None:
        for peer in peers:
            for layer in layers:
                with peer(module, [module.get_submodule(layer)], reshape_transform=reshape) as cam:
                    cam(image.detach().requires_grad_(), [ClassifierOutputTarget(target)])

    maps = len(PIXEL_METHODS) + len(peers) * len(stages)
    return compute_pixel_maps, compute_cams, len(stages) / len(layers), maps


def _reshape_tokens(tokens: TokenLayout, output: Tensor) -> Tensor:
    """Return patch tokens as a spatial map: the `reshape_transform` of pytorch-grad-cam."""
    return output[:, tokens.num_prefix_tokens :].unflatten(1, tokens.grid).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------- profile


def _profile(model: vizlib.Model, options) -> list[tuple]:
    """Return rows with the mean time of each part of explain_all, and of plain passes for comparison."""
    seconds: dict[str, float] = defaultdict(float)

    def add_timer(function: Callable, part: str) -> Callable:
        def run(*args, **kwargs):
            synchronize(options.device)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                synchronize(options.device)
                seconds[part] += (time.perf_counter() - started) / options.repeats

        return run

    with _fix_input(model) as (photo, image), contextlib.ExitStack() as patches:
        _compute_gradient(model, image)
        vizlib.explain_all(model, photo)
        for _ in range(options.repeats):
            pixels = image.detach().requires_grad_()
            top = add_timer(model.module, "(plain forward pass)")(pixels)[0].max()
            add_timer(torch.autograd.grad, "(plain backward pass)")(top, pixels)
        parts = {
            "forward pass, recorded": (vizlib.Model, "run"),
            "backward pass": (Recording, "compute_gradients"),
            "results and notes": (explain, "_make_attribution"),
        }
        for part, (owner, name) in parts.items():
            patches.enter_context(patch.object(owner, name, add_timer(getattr(owner, name), part)))
        for _ in range(options.repeats):
            add_timer(vizlib.explain_all, "all")(model, photo)
    total = seconds.pop("all")
    seconds["computation of the maps, and the rest"] = total - sum(seconds[part] for part in parts)
    return [
        (model.name, part, f"{1e3 * duration:.2f} ms", f"{duration / total:.1%}") for part, duration in seconds.items()
    ]


if __name__ == "__main__":
    main()
