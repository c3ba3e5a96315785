"""Export a trained digit CLIP to the folder of bundled checkpoints: weights, training history and sidecar.

python -m checkpoints.training.export_clip RUN --digits DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from checkpoints.training.digit_scenes import (
    DIGITS,
    HELD_OUT,
    PROMPTS,
    WORDS,
    DigitImages,
    compose_scenes,
    create_tokenizer,
    normalise,
)
from checkpoints.training.evaluate import wilson_interval
from checkpoints.training.evaluate_clip import PREPROCESSING
from checkpoints.training.export import CHECKPOINTS, write_history
from checkpoints.training.train_clip import (
    BATCH,
    EMBED_DIM,
    STEPS,
    TEXT,
    VISION,
    compute_accuracy,
    load_weights,
)
from vizlib.models.loading.checkpoint_files import hash_file

NAME = "clip-digits"
TRAINING = "python -m checkpoints.training.train_clip --digits mnist"
TEST_SCENES, TEST_SEED = 4000, 10**6
WEAKNESS = (
    f"It knows {len(WORDS)} words, and scenes of two to four coloured digits on a dark ground; of any other photo its "
    "scores mean nothing."
)


def export_clip(run: Path, digits: Path) -> None:
    """Write the weights in half precision, the history, and the sidecar with the accuracy of that file.

    Args:
        run: Folder of the run, which holds `last.pt`.
        digits: Folder of MNIST's four files as published.
    """
    state = torch.load(run / "last.pt", weights_only=True)
    weights = CHECKPOINTS / f"{NAME}.safetensors"
    save_file({name: value.half().contiguous() for name, value in state["network"].items()}, weights)
    write_history(CHECKPOINTS / f"{NAME}.csv", [rename_columns(row) for row in state["history"]])
    network = load_weights(weights)
    images = DigitImages(digits, "t10k")
    accuracy = compute_accuracy(network, images, TEST_SEED, TEST_SCENES)
    text = {**TEXT, "vocab_size": create_tokenizer().vocab_size, "pad_id": 0}
    seed = run.name.rsplit("-", 1)[-1]
    sidecar = {
        "clip": {"model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": text}, "words": list(WORDS)},
        "labels": list(PROMPTS),
        "preprocessing": PREPROCESSING,
        "sha256": hash_file(weights),
        "origin": {
            "data": "scenes of coloured MNIST digits",
            "data_licence": "CC BY-SA 3.0 (MNIST)",
            "channel_order": "RGB",
            "stages": [
                {
                    "command": f"{TRAINING} --seed {seed} --bfloat16",
                    "start": "random initialisation",
                    "teacher": None,
                    "augmentation": [
                        "new scenes in every step: digits, colours, brightness, places, background",
                        f"{len(HELD_OUT)} of {len(PROMPTS)} combinations of colour and digit never shown or named",
                    ],
                    "epochs": len(state["history"]),
                    "minutes": round(sum(row["seconds"] for row in state["history"]) / 60),
                    "note": f"{STEPS} steps of {BATCH} scenes each epoch",
                }
            ],
            "machine": state["machine"],
        },
        "accuracy": {
            "top1": round(accuracy["top1"], 2),
            "interval95": compute_interval(accuracy["top1"]),
            "held_out": round(accuracy["held_out"], 2),
            "held_out_interval95": compute_interval(accuracy["held_out"]),
            "photos": TEST_SCENES,
            "data": "scenes composed of MNIST's test digits",
            "command": f"{TRAINING} --evaluate checkpoints/{NAME}.safetensors",
        },
        "weaknesses": [WEAKNESS, describe_errors(network, images)],
    }
    (CHECKPOINTS / f"{NAME}.json").write_text(json.dumps(sidecar, indent=1) + "\n")


@torch.inference_mode()
def describe_errors(network: Any, images: DigitImages) -> str:
    """Return in one sentence how the best prompt is wrong on the test scenes."""
    scenes = compose_scenes(images, TEST_SCENES, torch.Generator().manual_seed(TEST_SEED))
    text = network.encode_text(create_tokenizer()(PROMPTS), normalize=True)
    best = (network.encode_image(normalise(scenes.images), normalize=True) @ text.T).argmax(1)
    present = scenes.combinations >= 0
    colors = present & (scenes.combinations // len(DIGITS) == (best // len(DIGITS))[:, None])
    digits = present & (scenes.combinations % len(DIGITS) == (best % len(DIGITS))[:, None])
    is_wrong = ~(colors & digits).any(1)
    swapped = int((is_wrong & colors.any(1) & digits.any(1)).sum())
    return (
        f"Of {TEST_SCENES:,} test scenes its best prompt is wrong in {int(is_wrong.sum())}; in {swapped} of these it "
        "names a digit in the colour of another one."
    )


def compute_interval(percent: float) -> list[float]:
    """Return the 95 % confidence interval of an accuracy on the test scenes, both in percent."""
    low, high = wilson_interval(round(percent * TEST_SCENES / 100), TEST_SCENES)
    return [round(100 * low, 2), round(100 * high, 2)]


def rename_columns(row: dict[str, float]) -> dict[str, float]:
    """Return a row of the history with the names of the columns of all bundled networks."""
    names = {"top1": "val_top1", "held_out": "val_top1_held_out"}
    return {"stage": 1, **{names.get(name, name): value for name, value in row.items()}}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--digits", type=Path, required=True, help="folder of MNIST's four files as published")
    options = parser.parse_args()
    export_clip(options.run, options.digits)


if __name__ == "__main__":
    main()
