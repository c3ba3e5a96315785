"""The speed of methods of many passes relative to their peers, and the effect of bfloat16 on their maps.

The peers: captum's Occlusion, with one window per pass (its default) and with the fastest of larger batches; a plain
loop of the algorithm of RISE in single precision, as in the authors' code, since no PyTorch library has it;
pytorch-grad-cam's ScoreCAM and AblationCAM, timed on some of the channels with their own batch sizes, and scaled to all
channels.
"""

from __future__ import annotations

import contextlib
import copy
import io
from functools import partial
from typing import Any

import torch
from captum.attr import Occlusion
from common import (
    check_at_least,
    load_photos,
    load_resnet,
    parse_options,
    print_table,
    spearman,
    time_alternately,
)
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import vizlib
from vizlib.attribution.methods.perturbation import make_rise_masks
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB

COLUMNS = ("method", "passes", "vizlib (min–max)", "precision", "peer", "peer (min–max)", "times faster", "goal", "met")
COLUMNS += ("Spearman with float32", "goal", "met")


def main() -> None:
    """Print the table."""
    more = {
        "only": ("", "occlusion, rise or channels: the rows of one part"),
        "budget": (DEFAULT_BUDGET_MB, "budget_mb of vizlib"),
    }
    options = parse_options(__doc__, repeats=3, **more)
    model, photo = load_resnet(options.device, "resnet18" if options.quick else "resnet50"), load_photos()[0]
    image, target = model.tensor(photo), model.predict(photo, top=1)[0].index
    parts = {"occlusion": _compare_occlusion, "rise": _compare_rise, "channels": _compare_channel_methods}
    if options.only not in ("", *parts):
        raise SystemExit(f"--only takes {', '.join(parts)}, not {options.only!r}")
    selected = [parts[options.only]] if options.only else parts.values()
    rows = [row for part in selected for row in part(model, photo, image, target, options)]
    note = f"{model.name} at 224 px, budget_mb={options.budget}."
    print_table(COLUMNS, rows, options, note)


def _compare_occlusion(model, photo, image, target, options) -> list[tuple]:
    stride = 32 if options.quick else 16
    occlusion = Occlusion(model.module)

    def run_captum(batch: int) -> torch.Tensor:
        windows: dict[str, Any] = {"sliding_window_shapes": (3, 32, 32), "strides": (3, stride, stride)}
        return occlusion.attribute(image, baselines=0, perturbations_per_eval=batch, target=target, **windows)

    sizes = (1, 8) if options.quick else (1, 8, 16, 32)
    peers = {f"captum, {size} a pass": partial(run_captum, size) for size in sizes}
    rows = _make_rows(model, photo, "occlusion", peers, options, stride=stride)
    best = min(list(rows)[1:], key=lambda name: rows[name][5].median)
    return [rows["captum, 1 a pass"], (*rows[best][:4], f"{best} (its best)", *rows[best][5:])]


def _compare_rise(model, photo, image, target, options) -> list[tuple]:
    count = 32 if options.quick else 1000
    # Not timed; vizlib makes its own masks, timed.
    masks = make_rise_masks(torch.arange(count), (224, 224), 7, 0.5, 0).to(image)

    @torch.no_grad()
    def run_plain_loop() -> torch.Tensor:
        probabilities = [model.module(image * batch.unsqueeze(1)).softmax(1)[:, target] for batch in masks.split(32)]
        return (torch.cat(probabilities) @ masks.flatten(1)).view(224, 224) / count / 0.5

    peers = {"plain loop, 32 a pass": run_plain_loop}
    return list(_make_rows(model, photo, "rise", peers, options, masks=count).values())


def _compare_channel_methods(model, photo, image, target, options) -> list[tuple]:
    layer, count = ("layer1", 16) if options.quick else ("layer4", 256)
    activation = model.run(photo, layers=[layer]).activations[layer].detach()
    total = activation.shape[1]
    rows = []
    for name, peer in (("score-cam", ScoreCAM), ("ablation-cam", AblationCAM)):
        module = copy.deepcopy(model.module)  # the peer modifies it

        def run_peer(peer: Any = peer, module=module) -> None:
            """Run only the loop over the first channels, without the other work of the peer."""
            target_layer = module.get_submodule(layer)
            # The peer prints a progress bar.
            with contextlib.redirect_stderr(io.StringIO()), peer(module, [target_layer]) as cam:
                channels = activation[:, :count].cpu().numpy()
                gradients: Any = None  # neither method reads them
                cam.get_cam_weights(image, target_layer, [ClassifierOutputTarget(target)], channels, gradients)

        title = f"pytorch-grad-cam, {count} of {total} channels, scaled"
        rows += _make_rows(model, photo, name, {title: run_peer}, options, scale=total / count, layer=layer).values()
    return rows


def _make_rows(model, photo, method: str, peers, options, *, scale: float = 1, **parameters) -> dict[str, tuple]:
    """Return a row for each peer, by its name."""
    parameters["budget_mb"] = options.budget
    *_, last = vizlib.explain_stream(model, photo, method, **parameters)
    single = vizlib.explain(model, photo, method, precision="float32", **parameters)
    correlation = spearman(last.attribution.heat, single.heat)
    codes = {getattr(note, "code", "") for note in last.attribution.notes}
    precision = "bfloat16" if "score.bfloat16" in codes else "float32"
    timings = time_alternately(
        options.repeats, options.device, vizlib=lambda: vizlib.explain(model, photo, method, **parameters), **peers
    )
    ours = timings.pop("vizlib")
    rows = {}
    for name, timing in timings.items():
        peer = timing.scale(scale)
        ratio = peer.median / ours.median
        cells = (f"{ratio:.1f}", *check_at_least(ratio, 3), f"{correlation:.4f}", *check_at_least(correlation, 0.99))
        rows[name] = (method, last.total, ours, precision, name, peer, *cells)
    return rows


if __name__ == "__main__":
    main()
