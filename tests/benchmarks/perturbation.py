"""How much faster methods of many passes are than their peers, and whether bfloat16 changes their maps.

The peers: captum's Occlusion, one window a pass (its default) and the best of larger batches; a plain loop of RISE's
algorithm in single precision, as its authors wrote it, since no PyTorch library has it; pytorch-grad-cam's ScoreCAM and
AblationCAM, timed on some of the channels with their own batch sizes, and scaled to all.
"""

from __future__ import annotations

import contextlib
import copy
import io
from functools import partial
from typing import Any

import torch
from captum.attr import Occlusion
from common import BFLOAT16, at_least, interleaved, options, photos, resnet, show, spearman
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import vizlib
from vizlib.attribution.methods.perturbation import make_rise_masks
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB

COLUMNS = ("method", "passes", "ours (min–max)", "in", "peer", "peer (min–max)", "times faster", "goal", "met")
COLUMNS += ("Spearman with float32", "goal", "met")


def main() -> None:
    """Print the table."""
    more = {
        "only": ("", "occlusion, rise or channels: one part's rows"),
        "budget": (DEFAULT_BUDGET_MB, "our budget_mb"),
    }
    given = options(__doc__, repeats=3, **more)
    model, photo = resnet(given.device, "resnet18" if given.quick else "resnet50"), photos()[0]
    image, target = model.tensor(photo), model.predict(photo, top=1)[0].index
    parts = {"occlusion": _occlusion, "rise": _rise, "channels": _channels}
    if given.only not in ("", *parts):
        raise SystemExit(f"--only takes {', '.join(parts)}, not {given.only!r}")
    asked = [parts[given.only]] if given.only else parts.values()
    rows = [row for part in asked for row in part(model, photo, image, target, given)]
    about = f"{model.name} at 224 px, budget_mb={given.budget}; ours without a note ran in single precision."
    show(COLUMNS, rows, given, about)


def _occlusion(model, photo, image, target, given) -> list[tuple]:
    stride = 32 if given.quick else 16
    occlusion = Occlusion(model.module)

    def peer(batch: int) -> torch.Tensor:
        how = {"sliding_window_shapes": (3, 32, 32), "strides": (3, stride, stride), "target": target}
        return occlusion.attribute(image, baselines=0, perturbations_per_eval=batch, **how)

    peers = {f"captum, {n} a pass": partial(peer, n) for n in ((1, 8) if given.quick else (1, 8, 16, 32))}
    found = _compare(model, photo, "occlusion", peers, given, stride=stride)
    best = min(list(found)[1:], key=lambda row: found[row][5].median)
    return [found["captum, 1 a pass"], (*found[best][:4], f"{found[best][4]} (its best)", *found[best][5:])]


def _rise(model, photo, image, target, given) -> list[tuple]:
    count = 32 if given.quick else 1000
    # Not timed; vizlib makes its own masks, timed.
    masks = make_rise_masks(torch.arange(count), (224, 224), 7, 0.5, 0).to(image)

    @torch.no_grad()
    def loop() -> torch.Tensor:
        chances = [model.module(image * some.unsqueeze(1)).softmax(1)[:, target] for some in masks.split(32)]
        return (torch.cat(chances) @ masks.flatten(1)).view(224, 224) / count / 0.5

    return list(_compare(model, photo, "rise", {"plain loop, 32 a pass": loop}, given, masks=count).values())


def _channels(model, photo, image, target, given) -> list[tuple]:
    layer, some = ("layer1", 16) if given.quick else ("layer4", 256)
    activation = model.run(photo, layers=[layer]).activations[layer].detach()
    total = activation.shape[1]
    rows = []
    for name, kind in (("score-cam", ScoreCAM), ("ablation-cam", AblationCAM)):
        module = copy.deepcopy(model.module)  # the peer writes to it

        def peer(kind=kind, module=module) -> None:
            """The loop over channels alone, of the first ones: the rest of the peer's work is left out."""
            part = module.get_submodule(layer)
            with contextlib.redirect_stderr(io.StringIO()), kind(module, [part]) as cam:  # it draws a bar for its loop
                slices = activation[:, :some].cpu().numpy()
                gradients: Any = None  # neither method reads them
                cam.get_cam_weights(image, part, [ClassifierOutputTarget(target)], slices, gradients)

        title = f"pytorch-grad-cam, {some} of {total} channels, scaled"
        rows += _compare(model, photo, name, {title: peer}, given, scale=total / some, layer=layer).values()
    return rows


def _compare(model, photo, method: str, peers, given, *, scale: float = 1, **knobs) -> dict[str, tuple]:
    """A row for each peer, by name."""
    knobs["budget_mb"] = given.budget
    *_, last = vizlib.explain_stream(model, photo, method, **knobs)
    single = vizlib.explain(model, photo, method, precision="float32", **knobs)
    same = spearman(last.attribution.heat, single.heat)
    kind = "bfloat16" if any(note.startswith(BFLOAT16) for note in last.attribution.notes) else "float32"
    found = interleaved(
        given.repeats, given.device, ours=lambda: vizlib.explain(model, photo, method, **knobs), **peers
    )
    ours = found.pop("ours")
    rows = {}
    for name, one in found.items():
        theirs = one.times(scale)
        times = theirs.median / ours.median
        faster = (f"{times:.1f}", *at_least(times, 3))
        rows[name] = (method, last.total, ours, kind, name, theirs, *faster, f"{same:.4f}", *at_least(same, 0.99))
    return rows


if __name__ == "__main__":
    main()
