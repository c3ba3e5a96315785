"""Grade the maps of the digit CLIP on scenes whose truth is known: on which digit does a map have its peak?

    python -m checkpoints.training.evaluate_clip --digits DIR FILE...       # one file for each training seed
    python -m checkpoints.training.evaluate_clip --digits DIR --random      # the control: random weights

Each scene has two digits, and each of its two prompts is explained. A map's peak is on a digit if the patch of the
peak holds a pixel of it. In a contrast of both prompts, the map should be positive on the one and negative on the
other: the sums of the heat over the patches of each digit are compared with 0.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import vizlib
from checkpoints.training.digit_scenes import MEAN, PROMPTS, SIDE, STD, DigitImages, compose_scenes, create_tokenizer
from checkpoints.training.train_clip import PATCH, create_network, load_weights
from vizlib.attribution.methods.registry import METHODS
from vizlib.attribution.request import MANY_PASSES

SEED = 10**6  # of the scenes, none of which was trained on
VISIBLE = 0.5  # opacity from which a pixel belongs to a digit
PREPROCESSING = {
    "input_size": [3, SIDE, SIDE],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": list(MEAN),
    "std": list(STD),
}


class GradedScene(NamedTuple):
    """A scene of two digits.

    Attributes:
        image: RGB "48 48 3", 8 bits.
        prompts: The prompt of each digit.
        patches: Which patches hold a pixel of each digit, boolean "2 rows columns".
    """

    image: np.ndarray
    prompts: tuple[str, str]
    patches: Tensor


def make_model(weights: Path | None) -> vizlib.Model:
    """Return the model of all prompts, with the weights of a file or random ones."""
    torch.manual_seed(0)
    network = create_network() if weights is None else load_weights(weights)
    return vizlib.wrap_clip(network.eval(), create_tokenizer(), PREPROCESSING).with_prompts(PROMPTS)


def list_graded_scenes(digits: DigitImages, count: int) -> Iterator[GradedScene]:
    """Yield scenes of two digits, in all combinations of colour and digit that were trained."""
    scenes = compose_scenes(digits, count, torch.Generator().manual_seed(SEED), digits=(2, 2))
    for image, combinations, masks in zip(scenes.images, scenes.combinations, scenes.masks, strict=True):
        present = (combinations >= 0).nonzero().flatten()
        first, second = (PROMPTS[combinations[place]] for place in present)
        touched = F.max_pool2d(masks[present].float(), PATCH) > VISIBLE
        yield GradedScene((image * 255).round().byte().permute(1, 2, 0).numpy(), (first, second), touched)


def pool_to_patches(heat: Tensor) -> Tensor:
    """Return the heat of each patch "rows columns": the sum over its pixels of a map with one value a pixel."""
    side = SIDE // PATCH
    if heat.shape == (side, side):
        return heat
    if heat.shape == (SIDE, SIDE):
        return F.avg_pool2d(heat[None], PATCH)[0] * PATCH**2
    return F.interpolate(heat[None, None], (side, side), mode="area")[0, 0]


def find_peak(heat: Tensor) -> tuple[int, int]:
    """Return the row and column of the patch that holds the largest value of a map."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    side = SIDE // PATCH
    return row * side // heat.shape[0], column * side // heat.shape[1]


def grade_peaks(model: vizlib.Model, scenes: Sequence[GradedScene], methods: Sequence[str]) -> dict[str, list[float]]:
    """Return of each method the share of peaks on the named digit, and on the other one."""
    named: dict[str, int] = defaultdict(int)
    other: dict[str, int] = defaultdict(int)
    for scene in tqdm(scenes, leave=False):
        for index, prompt in enumerate(scene.prompts):
            maps = dict(vizlib.explain_all(model, scene.image, prompt))
            for method in methods:
                attribution = maps.get(method) or vizlib.explain(model, scene.image, method, prompt)
                row, column = find_peak(attribution.heat)
                named[method] += int(scene.patches[index, row, column])
                other[method] += int(scene.patches[1 - index, row, column])
    total = 2 * len(scenes)
    return {method: [named[method] / total, other[method] / total] for method in methods}


def grade_contrast(model: vizlib.Model, scenes: Sequence[GradedScene], methods: Sequence[str]) -> dict[str, float]:
    """Return of each method the share of scenes with a contrast positive on one digit and negative on the other."""
    right: dict[str, int] = defaultdict(int)
    for scene in tqdm(scenes, leave=False):
        maps = dict(vizlib.explain_all(model, scene.image, *scene.prompts))
        for method in methods:
            attribution = maps.get(method) or vizlib.explain(model, scene.image, method, *scene.prompts)
            heat = pool_to_patches(attribution.heat)
            sums = [heat[patches].sum() for patches in scene.patches]
            right[method] += int(sums[0] > 0 > sums[1])
    return {method: right[method] / len(scenes) for method in methods}


def name_weights(weights: Path | None) -> str:
    """Return the name of weights in the table: the seed of a run, the name of a file, or that they are random."""
    if weights is None:
        return "random"
    return f"seed {weights.parent.name.rsplit('-', 1)[-1]}" if weights.name == "last.pt" else weights.stem


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="*", type=Path, help=".safetensors files, or last.pt of runs")
    parser.add_argument("--random", action="store_true", help="also grade a network with random weights")
    parser.add_argument("--digits", type=Path, required=True, help="folder of MNIST's four files as published")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--slow-scenes", type=int, default=20, help="of methods of many passes")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    options = parser.parse_args()
    scenes = list(list_graded_scenes(DigitImages(options.digits, "t10k"), options.scenes))
    rows = []
    for weights in [*options.weights, *([None] if options.random else [])]:
        model = make_model(weights)
        supported = vizlib.list_methods(model)
        slow = [name for name in supported if METHODS[name].cost == MANY_PASSES]
        fast = [name for name in supported if name not in slow]
        some = scenes[: options.slow_scenes]
        peaks = {**grade_peaks(model, scenes, fast), **grade_peaks(model, some, slow)}
        contrasts = {**grade_contrast(model, scenes, fast), **grade_contrast(model, some, slow)}
        for method in supported:
            rows.append(
                {
                    "weights": name_weights(weights),
                    "method": method,
                    "scenes": options.slow_scenes if method in slow else options.scenes,
                    "peak_on_named": round(peaks[method][0], 4),
                    "peak_on_other": round(peaks[method][1], 4),
                    "contrast": round(contrasts[method], 4),
                }
            )
            print(*rows[-1].values(), sep="\t", flush=True)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
