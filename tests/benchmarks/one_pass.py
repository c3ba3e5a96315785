"""What `explain_all` costs: against one forward and one backward pass, and against peers who pay once a picture.

The photo is opened and prepared before anything is timed. The floor is the least any gradient needs: one forward pass
and the gradient of the top logit at the pixels, of the same frozen network.
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
from common import at_least, at_most, finish, interleaved, options, photos, resnet, show, vit
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import vizlib
from vizlib.attribution import explain
from vizlib.models.preprocessing import TimmPreprocessing

PIXELS = {"saliency": Saliency, "input-x-gradient": InputXGradient}
CAMS = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "xgradcam": XGradCAM,
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
}
BLOCKS = 3  # of a transformer's, the peers draw this many; what they take is scaled to all


def main() -> None:
    """Print the table."""
    given = options(__doc__, repeats=15, profile=(False, "show where the time of explain_all goes"))
    rows, notes, profiles = [], [], []
    for model in (resnet(given.device), vit(given.device)):
        rows += _rows(model, given, notes)
        if given.profile:
            profiles += _profile(model, given)
    show(("network", "what", "time (min–max)", "ratio", "goal", "met"), rows, given, *notes)
    if profiles:
        show(("network", "part of explain_all", "time", "share"), profiles, given)


def _rows(model: vizlib.Model, given, notes: list[str]) -> list[tuple]:
    with _prepared(model) as (photo, image):
        answers = vizlib.explain_all(model, photo)
        run = vizlib.run_for_all(model, photo)
        other = int(run.logits[0].argsort(descending=True)[1])
        found = interleaved(
            given.repeats,
            given.device,
            floor=partial(_floor, model, image),
            ours=lambda: vizlib.explain_all(model, photo),
            other=lambda: vizlib.explain_all(model, run=run, target=other),
        )
        pixels, cams, scale, views = _peers(model, image, answers, quick=given.quick)
        peers = interleaved(
            max(1, given.repeats // 5),
            given.device,
            ours=lambda: vizlib.explain_all(model, photo),
            pixels=pixels,
            cams=cams,
        )
    theirs = peers["pixels"].plus(peers["cams"].times(scale))
    if scale != 1:
        notes.append(
            f"{model.name}: the peers' class activation maps were timed at one layer in {scale:g}, and scaled."
        )
    maps = sum(len(answer.by_layer) or 1 for answer in answers.values())
    over, again = (found[name].median / found["floor"].median for name in ("ours", "other"))
    times = theirs.median / peers["ours"].median
    what = f"explain_all: {len(answers)} methods, {maps} maps"
    return [
        (model.name, "floor: one forward, one backward pass", found["floor"], "1", "", ""),
        (model.name, what, found["ours"], f"{over:.3f} × floor", *at_most(over, 1.15)),
        (model.name, "another class of a kept run, all maps", found["other"], f"{again:.3f} × floor", "", ""),
        (model.name, f"peers, {views} of these maps", theirs, f"{times:.1f} × explain_all", *at_least(times, 10)),
    ]


@contextlib.contextmanager
def _prepared(model: vizlib.Model) -> Iterator[tuple]:
    """A photo, and the input it becomes, which nothing prepares again inside this block."""
    photo = photos()[0]
    image = model.tensor(photo)
    with patch.object(TimmPreprocessing, "tensor", lambda self, photo: image):
        yield photo, image


def _floor(model: vizlib.Model, image: Tensor) -> Tensor:
    image = image.detach().requires_grad_()
    return torch.autograd.grad(model.module(image)[0].max(), image)[0]


def _peers(model: vizlib.Model, image: Tensor, answers, *, quick: bool) -> tuple[Callable, Callable, float, int]:
    """What draws the same views: at the pixels, at layers; how many times more layers there are; how many views.

    The peers get a frozen copy and an input that requires a gradient: without gradients of weights they are quickest.
    """
    module = copy.deepcopy(model.module)
    target = next(iter(answers.values())).target
    stages = model.stages
    some = stages if len(stages) <= 4 else stages[1 :: len(stages) // BLOCKS]
    some = some[-1:] if quick else some
    drawn = [CAMS[key] for name in answers if (key := name.replace("-", "")) in CAMS]
    reshape = None if model.tokens is None else partial(_picture, model.tokens)

    def pixels() -> None:
        for name in PIXELS:
            PIXELS[name](module).attribute(image.detach().requires_grad_(), target=target)

    def cams() -> None:
        for peer in drawn:
            for layer in some:
                with peer(module, [module.get_submodule(layer)], reshape_transform=reshape) as cam:
                    cam(image.detach().requires_grad_(), [ClassifierOutputTarget(target)])

    return pixels, cams, len(stages) / len(some), len(PIXELS) + len(drawn) * len(stages)


def _picture(tokens, output: Tensor) -> Tensor:
    """pytorch-grad-cam's `reshape_transform`: the patches' tokens as a picture."""
    return output[:, tokens.prefix :].unflatten(1, tokens.grid).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------- where the time goes


def _profile(model: vizlib.Model, given) -> list[tuple]:
    """Mean time of each part of explain_all, and of the plain passes to compare with."""
    spent: dict[str, float] = defaultdict(float)

    def timed(function: Callable, part: str) -> Callable:
        def run(*args, **kwargs):
            finish(given.device)
            before = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                finish(given.device)
                spent[part] += (time.perf_counter() - before) / given.repeats

        return run

    with _prepared(model) as (photo, image), contextlib.ExitStack() as undo:
        _floor(model, image)
        vizlib.explain_all(model, photo)
        for _ in range(given.repeats):
            pixels = image.detach().requires_grad_()
            top = timed(model.module, "(plain forward pass)")(pixels)[0].max()
            timed(torch.autograd.grad, "(plain backward pass)")(top, pixels)
        parts = {"forward, watched": (vizlib.Model, "run"), "backward": (vizlib.Run, "gradients")}
        for part, (owner, name) in {**parts, "notes": (explain, "notes_on")}.items():
            undo.enter_context(patch.object(owner, name, timed(getattr(owner, name), part)))
        for _ in range(given.repeats):
            timed(vizlib.explain_all, "all")(model, photo)
    whole = spent.pop("all")
    named = sum(spent[part] for part in (*parts, "notes"))
    spent["maths of the maps, and the rest"] = whole - named
    return [(model.name, part, f"{1e3 * one:.2f} ms", f"{one / whole:.1%}") for part, one in spent.items()]


if __name__ == "__main__":
    main()
