"""Train the bundled CLIP on scenes of coloured MNIST digits with captions.

    python -m checkpoints.training.train_clip --digits DIR                  # train, or continue
    python -m checkpoints.training.train_clip --digits DIR --evaluate FILE  # accuracy of a trained file

The network is open_clip's own class from random initialisation. Training resumes from the last finished epoch; every
epoch sets its own seed, so that a run that was killed and restarted has the same history as an uninterrupted one.

A caption such as "a red seven" is true of many scenes of a batch, so that the pairs off the diagonal are not all
negative. As it is known which captions are true of which scenes, the targets of the contrastive loss are those.

References:
    Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, arXiv:2103.00020.
    Yang et al.: Unified Contrastive Learning in Image-Text-Label Space, CVPR 2022, arXiv:2204.03610.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from checkpoints.training.digit_scenes import (
    COMBINATIONS,
    CONTEXT_LENGTH,
    HELD_OUT,
    PROMPTS,
    SIDE,
    DigitImages,
    compose_scenes,
    compute_truth,
    create_tokenizer,
    normalise,
    write_captions,
)
from checkpoints.training.train import CHECKPOINTS, describe_machine

PATCH = 8  # pixels
VISION: dict[str, Any] = {"image_size": SIDE, "patch_size": PATCH, "width": 128, "layers": 4, "head_width": 32}
TEXT: dict[str, Any] = {"context_length": CONTEXT_LENGTH, "width": 96, "heads": 3, "layers": 2}
EMBED_DIM = 48
BATCH, STEPS, LR, WEIGHT_DECAY = 256, 250, 1.5e-3, 0.2  # STEPS is per epoch
CAPTIONS_PER_SCENE = 2
WARMUP_STEPS = 250


def create_network() -> Any:
    """Return the network with random weights."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    text = CLIPTextCfg(**TEXT, vocab_size=create_tokenizer().vocab_size, pad_id=0)
    return CLIP(EMBED_DIM, CLIPVisionCfg(**VISION), text)


def load_weights(path: Path) -> Any:
    """Return the network with the weights of a .safetensors file, or of the state of a run."""
    network = create_network()
    weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)["network"]
    network.load_state_dict(weights)
    return network.float()


def compute_contrastive_loss(similarity: Tensor, truth: Tensor) -> Tensor:
    """Return the loss of UniCL: cross-entropy against the true captions of each scene, and the true scenes of each.

    Args:
        similarity: Scaled cosine similarities "scenes captions".
        truth: Which captions are true of which scenes, boolean "scenes captions"; every row and column has one.
    """
    targets = truth.float()
    by_scene = -(targets / targets.sum(1, keepdim=True) * similarity.log_softmax(1)).sum(1).mean()
    by_caption = -(targets / targets.sum(0) * similarity.log_softmax(0)).sum(0).mean()
    return (by_scene + by_caption) / 2


@torch.inference_mode()
def compute_accuracy(network: Any, images: DigitImages, seed: int, count: int = 1000) -> dict[str, float]:
    """Return how often the best of the prompts "a red seven" and so on is in the scene, in percent.

    Returns:
        `top1` for fresh scenes of two to four digits in the combinations of the training, and `held_out` for scenes
        of two digits, both in combinations that the training never showed.
    """
    network.eval()
    text = network.encode_text(create_tokenizer()(PROMPTS), normalize=True)
    accuracy = {}
    for name, options in (("top1", {}), ("held_out", {"combinations": HELD_OUT, "digits": (2, 2)})):
        scenes = compose_scenes(images, count, torch.Generator().manual_seed(seed), **options)
        best = (network.encode_image(normalise(scenes.images), normalize=True) @ text.T).argmax(1)
        accuracy[name] = 100 * (scenes.combinations == best[:, None]).any(1).float().mean().item()
    return accuracy


def train(options: argparse.Namespace) -> None:
    """Train the network, or resume its run; state and history are written after every epoch."""
    run = options.runs / f"digit-clip-{options.seed}"
    run.mkdir(parents=True, exist_ok=True)
    digits, fresh = DigitImages(options.digits, "train"), DigitImages(options.digits, "t10k")
    tokenizer = create_tokenizer()
    torch.manual_seed(options.seed)
    network = create_network()
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))
    history: list[dict] = []
    if (run / "last.pt").exists():
        state = torch.load(run / "last.pt", weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
        print(f"resuming {run.name} after epoch {len(history)}")
    total = options.epochs * STEPS
    for epoch in range(len(history), options.epochs):
        started, mean_loss = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(options.seed * 1000 + epoch)
        network.train()
        for step in tqdm(range(STEPS), f"epoch {epoch + 1}/{options.epochs}", leave=False):
            done = epoch * STEPS + step
            lr = LR * min((done + 1) / WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * done / total)))
            for group in optimizer.param_groups:
                group["lr"] = lr
            scenes = compose_scenes(digits, BATCH, generator)
            texts: list[str] = []
            truth: list[Tensor] = []
            for _ in range(CAPTIONS_PER_SCENE):
                captions = write_captions(scenes, generator)
                texts += captions.texts
                truth.append(compute_truth(scenes, captions))
            unique = {text: index for index, text in enumerate(dict.fromkeys(texts))}
            # Of the fused attention the backward pass is slow on a CPU.
            with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                image = network.encode_image(normalise(scenes.images), normalize=True)
                text = network.encode_text(tokenizer(list(unique)), normalize=True)
            text = text[[unique[text] for text in texts]]
            similarity = network.logit_scale.exp() * image.float() @ text.float().T
            loss = compute_contrastive_loss(similarity, torch.cat(truth, 1))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            network.logit_scale.data.clamp_(0, math.log(100))
            mean_loss += loss.item() / STEPS
        accuracy = compute_accuracy(network, fresh, seed=epoch)
        row = {
            "epoch": epoch + 1,
            "lr": round(optimizer.param_groups[0]["lr"], 6),
            "train_loss": round(mean_loss, 4),
            "logit_scale": round(network.logit_scale.exp().item(), 2),
            **{name: round(value, 2) for name, value in accuracy.items()},
            "seconds": round(time.monotonic() - started, 1),
        }
        history.append(row)
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
            "machine": describe_machine(torch.device("cpu")),
        }
        torch.save(state, run / "last.tmp")
        os.replace(run / "last.tmp", run / "last.pt")  # atomic: a killed run leaves the old or the new file
        with (run / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(history)
        print(row, flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True, help="folder of MNIST's four files as published")
    parser.add_argument("--runs", type=Path, default=CHECKPOINTS / "runs", help="folder of the state of runs")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16 where precision allows it")
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="evaluate a .safetensors file instead")
    options = parser.parse_args()
    if options.evaluate:
        network = load_weights(options.evaluate)
        accuracy = compute_accuracy(network, DigitImages(options.digits, "t10k"), seed=10**6, count=4000)
        print(f"{len(COMBINATIONS)} prompts: {accuracy['top1']:.2f} %, held out: {accuracy['held_out']:.2f} %")
    else:
        train(options)


if __name__ == "__main__":
    main()
