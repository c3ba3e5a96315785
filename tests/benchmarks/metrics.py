"""The time of metrics: deletion and insertion, parameter randomisation of all methods at once, and `vizlib.trust`.

Deletion and insertion of one map are compared with the plain loop (one changed photo a pass) and with Quantus
(PixelFlipping, which only deletes, so it is timed twice; it removes the three colours of a pixel one after another,
with three passes a step). Randomisation is compared with one `explain_all` of the copy for each level.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from common import check_at_least, check_at_most, load_photos, load_resnet, parse_options, print_table, time_alternately

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import ONE_PASS
from vizlib.metrics.method_groups import measure_methods_together
from vizlib.metrics.perturbation_curves import Perturbation, iterate_curves, rank_pixels
from vizlib.metrics.scored_photo import ScoredPhoto
from vizlib.models.randomised_copy import iterate_randomised_copies

STEPS = 16  # Quantus needs a divisor of the number of pixels
MIN_SPEED_UP = 3.0  # of deletion and insertion, against the plain loop
MAX_RANDOMISATION_RATIO = 1.3
MAX_TRUST_SECONDS, MAX_FIRST_SECONDS = 4.0, 1.0
PERTURBATIONS = (Perturbation(False, "mean"), Perturbation(True, "mean"))
COLUMNS = ("network", "what", "time (min–max)", "ratio", "goal", "met")


def main() -> None:
    """Print the table."""
    options = parse_options(__doc__, repeats=5)
    photo = load_photos()[0]
    vit = vizlib.load("vit_tiny-imagenet")
    vit.module.requires_grad_(False).to(options.device)
    rows = []
    for model in (load_resnet(options.device), vit):
        attribution = vizlib.explain(model, photo, "grad-cam")
        rows += compare_curves(model, attribution, options)
        rows += compare_randomisation(model, photo, options)
    rows += measure_trust(vit, photo, options)
    print_table(COLUMNS, rows, options, f"deletion and insertion in {STEPS} steps each")


def compare_curves(model: vizlib.Model, attribution: vizlib.Attribution, options) -> list[tuple]:
    """Return the rows of deletion and insertion: vizlib in both precisions, the plain loop, Quantus."""
    steps = 4 if options.quick else STEPS
    image = model.tensor(attribution.photo)
    target = attribution.target
    heat = F.interpolate(attribution.heat[None, None], image.shape[-2:], mode="bilinear", align_corners=False)
    ranks = rank_pixels(heat[0])[0].to(image.device)

    def run_vizlib(precision: str) -> torch.Tensor:
        photo = ScoredPhoto.make(model, attribution, precision=precision)
        *_, last = iterate_curves(photo, attribution.heat[None], PERTURBATIONS, steps)
        return last.scores[:, 0]

    def run_loop() -> torch.Tensor:
        scores = []
        for inserts in (False, True):
            for step in range(steps + 1):
                count = round(step / steps * len(ranks))
                is_first = (ranks < count).view(1, 1, *image.shape[-2:])
                with torch.no_grad():
                    logits = model.module(torch.where(is_first == inserts, image, 0))
                scores.append(logits.softmax(-1)[0, target].item())
        return torch.tensor(scores).view(2, -1)

    def run_quantus() -> None:
        for _ in range(2):
            metric = importlib.import_module("quantus").PixelFlipping(
                features_in_step=heat.numel() // steps, perturb_baseline=0.0, disable_warnings=True
            )
            arguments = {"a_batch": heat.cpu().numpy(), "device": str(image.device), "softmax": True}
            metric(model.module, image.cpu().numpy(), torch.tensor([target]).numpy(), **arguments)

    functions: dict[str, Callable[[], object]] = {
        "loop": run_loop,
        "single": lambda: run_vizlib("float32"),
        "auto": lambda: run_vizlib("auto"),
    }
    if find_spec("quantus"):
        functions["quantus"] = run_quantus
    times = time_alternately(options.repeats, options.device, **functions)
    loop = run_loop()
    rows = []
    for name, text in (("single", "single precision"), ("auto", "precision='auto'")):
        error = (run_vizlib("float32" if name == "single" else "auto") - loop).abs().max().item()
        speed_up = times["loop"].median / times[name].median
        what = f"deletion + insertion, {text}: largest difference from the loop {error:.1e}"
        goal, met = check_at_least(speed_up, MIN_SPEED_UP)
        rows.append((model.name, what, times[name], f"{speed_up:.2f} × faster than the loop", goal, met))
    rows.append((model.name, "the plain loop", times["loop"], 1, "", ""))
    if "quantus" in times:
        ratio = times["quantus"].median / times["auto"].median
        goal, met = check_at_least(ratio, MIN_SPEED_UP)
        rows.append((model.name, "Quantus, twice deletion", times["quantus"], f"{ratio:.2f} × vizlib", goal, met))
    return rows


def compare_randomisation(model: vizlib.Model, photo, options) -> list[tuple]:
    """Return the row of the randomisation of all methods of one pass over all levels."""
    attributions = {
        name: attribution
        for name, attribution in vizlib.explain_all(model, photo).items()
        if METHODS[name].cost == ONE_PASS
    }
    target = next(iter(attributions.values())).target
    copies = [copy for _, copy in iterate_randomised_copies(model)]

    def run_explain_all() -> None:
        for copy in copies:
            vizlib.explain_all(copy, photo, target)

    def run_randomisation() -> None:
        measure_methods_together(model, attributions, "parameter-randomisation")

    times = time_alternately(
        min(options.repeats, 3), options.device, explain_all=run_explain_all, randomisation=run_randomisation
    )
    ratio = times["randomisation"].median / times["explain_all"].median
    what = f"randomisation of {len(attributions)} methods over {len(copies)} levels"
    goal, met = check_at_most(ratio, MAX_RANDOMISATION_RATIO)
    return [(model.name, what, times["randomisation"], f"{ratio:.2f} × explain_all a level", goal, met)]


def measure_trust(model: vizlib.Model, photo, options) -> list[tuple]:
    """Return the rows of `vizlib.trust`: the whole, until the first bar, and of all methods of one pass together."""
    maps = dict(vizlib.explain_all(model, photo))
    attribution = maps["grad-cam"]
    times = time_alternately(
        options.repeats,
        options.device,
        first=lambda: next(vizlib.metrics.trust_stream(model, attribution)),
        whole=lambda: vizlib.trust(model, attribution),
        together=lambda: vizlib.metrics.trust_all(model, maps),
    )
    ratio = times["together"].median / (len(maps) * times["whole"].median)
    what = f"trust_all of {len(maps)} methods"
    together = (model.name, what, times["together"], f"{ratio:.2f} × trust of each", "", "")
    return [
        (model.name, what, times[name], "", *check_at_most(times[name].median, limit))
        for name, what, limit in (
            ("first", "trust: the first bar, in seconds", MAX_FIRST_SECONDS),
            ("whole", "trust: all three bars, in seconds", MAX_TRUST_SECONDS),
        )
    ] + [together]


if __name__ == "__main__":
    main()
