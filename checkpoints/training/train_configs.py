"""Training configurations of the bundled networks, and the data transforms that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from timm.data.transforms_factory import create_transform
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from checkpoints.training.imagenette import MEAN, STD

DESCRIPTIVE_FIELDS = ("bundled", "evaluation_method", "weaknesses")  # do not influence training


WEAKNESSES = (  # of every network trained on Imagenette; the export adds measured ones
    "It always predicts one of its ten classes, whatever the photo shows; its probabilities are not calibrated.",
    "It was trained on 9,469 photos of 160 pixels, mostly of one large object in the middle; small objects, drawings, "
    "night scenes, unusual angles and fine detail are outside its training data.",
    "ImageNet's photos come from the web of 2010, mostly from richer countries, and the people in them were not asked "
    "for consent.",
)


@dataclass(frozen=True)
class TrainConfig:
    """How one network is built and trained; options of the training script override some fields.

    Attributes:
        architecture: Name of a timm model.
        arguments: Keyword arguments of `timm.create_model` besides the name.
        size: Side of the square input of the exported network, in pixels.
        sizes: Side of the training photos in the first and the last epoch, in pixels; it grows in steps of 32.
        epochs: Number of epochs.
        optimizer: Keyword arguments of timm's `create_optimizer_v2`.
        interpolation: Of resizing, as timm names it.
        warmup_epochs: Epochs of linear learning-rate warm-up.
        clean_epochs: Last epochs, without mixup and random erasing.
        clean_size: Side of the training photos in these epochs, in pixels.
        batch: Batch size.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        erasing: Probability of random erasing.
        scale: Smallest and largest area of a training crop, as a fraction of the photo.
        bundled: Whether the weights are bundled; if not, only the training history is.
        evaluation_method: Method whose maps are tested for faithfulness.
        weaknesses: Known weaknesses, one sentence each.
    """

    architecture: str
    arguments: dict
    size: int
    sizes: tuple[int, int]
    epochs: int
    optimizer: dict
    interpolation: str
    warmup_epochs: float = 1.0
    clean_epochs: int = 0
    clean_size: int = 160
    batch: int = 64
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0
    scale: tuple[float, float] = (0.3, 1.0)
    bundled: bool = True
    evaluation_method: str = "grad-cam"
    weaknesses: tuple[str, ...] = WEAKNESSES


SGD = {"opt": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
TRAIN_CONFIGS = {
    "resnet18-imagenette": TrainConfig(
        architecture="resnet18",
        arguments={},
        size=192,  # objects are smaller in whole photos than in training crops, which a larger input compensates
        sizes=(96, 128),
        epochs=24,
        clean_epochs=3,
        clean_size=192,
        optimizer=SGD,
        interpolation="bilinear",
        mixup=0.2,
        erasing=0.25,
    ),
    "vit_tiny-imagenette": TrainConfig(
        architecture="vit_tiny_patch16_224",
        arguments={},
        size=224,  # larger than in training, as for the ResNet; the position embedding is resampled
        sizes=(160, 160),
        epochs=24,
        optimizer={"opt": "adamw", "lr": 1e-3, "weight_decay": 0.02},
        batch=32,
        interpolation="bicubic",
        evaluation_method="attention-relevance",
    ),
    "resnet18-classic": TrainConfig(  # one schedule, three initialisations: the effect of a pretrained backbone
        architecture="resnet18",
        arguments={},
        size=128,
        sizes=(128, 128),
        epochs=6,
        optimizer={**SGD, "lr": 0.02},
        interpolation="bilinear",
        bundled=False,
    ),
}


def compute_train_size(config: TrainConfig, epoch: int, epochs: int) -> int:
    """Return the side of the training photos in an epoch (from 0), in pixels."""
    if epoch >= epochs - config.clean_epochs:
        return config.clean_size
    first, last = config.sizes
    return round((first + (last - first) * epoch / max(epochs - 1, 1)) / 32) * 32


def resample_position_embedding(weights: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return the weights with the position embedding resampled by timm to the model's own input size."""
    own = getattr(model, "pos_embed", None)
    if own is None or "pos_embed" not in weights or weights["pos_embed"].shape == own.shape:
        return weights
    grid, prefix = list(model.patch_embed.grid_size), model.num_prefix_tokens
    resampled = resample_abs_pos_embed(weights["pos_embed"].float(), grid, num_prefix_tokens=prefix)
    return {**weights, "pos_embed": resampled}


def create_train_transform(config: TrainConfig, size: int, clean: bool):
    """Return timm's training transform: random resized crop, horizontal flip, normalisation, random erasing."""
    return create_transform(
        size,
        is_training=True,
        scale=config.scale,
        interpolation=config.interpolation,
        color_jitter=cast(Any, None),  # timm's annotation leaves out its own way to switch jitter off
        re_prob=0.0 if clean else config.erasing,
        mean=MEAN,
        std=STD,
    )


def describe_augmentation(config: TrainConfig) -> list[str]:
    """Return the augmentation of the training photos in words, in the order of its application."""
    low, high = config.scale
    listed = [f"random crop of {100 * low:.0f} to {100 * high:.0f} % of the area, resized", "horizontal flip"]
    listed += [f"random erasing of {100 * config.erasing:.0f} % of the photos"] if config.erasing else []
    listed += [f"mixup {config.mixup}"] if config.mixup else []
    listed += [f"cutmix {config.cutmix}"] if config.cutmix else []
    listed += [f"none of erasing and mixing in the last {config.clean_epochs} epochs"] if config.clean_epochs else []
    return [*listed, "label smoothing 0.1"]


START_LABELS = {  # how a run was initialised: end of its folder's name -> text
    "from-scratch": "from scratch",
    "frozen-backbone": "frozen backbone",
    "fine-tuned": "everything fine-tuned",
}
COMPARISON_TEXTS = {  # about the three runs of `resnet18-classic`
    "title": "Comparison of three initialisations",
    "text": "One network, trained on the same photos with the same schedule from three initialisations: random weights;"
    " a frozen backbone pretrained on ImageNet, so that only the new head is trained; the same backbone with all "
    "weights trainable.",
    "data": "Imagenette, 160 px (fastai)",
    "schedule": "Photos of 128 pixels, SGD with momentum 0.9, learning rate 0.02 with a cosine, batches of 64, random "
    "crops and flips, label smoothing 0.1; validation with the averaged weights, on whole photos. Imagenette's classes "
    "are ten of ImageNet's thousand, so the backbone was pretrained on photos like these, which is the best case.",
    "licence": "The backbone (resnet18.in1k of facebookresearch/kill-the-bits) is under CC BY-NC 4.0, so only the "
    "histories are kept here and no weights that derive from it.",
}
