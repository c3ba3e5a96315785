"""The table of recipes: what each network of this folder is, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from timm.data import create_transform
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from checkpoints.training.imagenette import MEAN, STD

DESCRIPTIVE_FIELDS = ("ships", "explained_by", "weaknesses")  # what a recipe says besides how to train


WEAKNESSES = (  # of anything trained on these photos; what is measured is added to it
    "It always names one of its ten classes, whatever it is shown; its probabilities are not calibrated.",
    "It has seen 9,469 photos of 160 pixels, mostly of one large object in the middle: small objects, drawings, night, "
    "unusual angles and fine detail are foreign to it.",
    "ImageNet's photos come from the web of 2010, mostly from richer countries, and people in them were not asked.",
)


@dataclass(frozen=True)
class TrainConfig:
    """How one network is built and trained; what `--help` lets a person change starts here."""

    architecture: str
    arguments: dict  # what `timm.create_model` is given besides the name
    size: int  # side of the square input the finished network is used at, in pixels
    sizes: tuple[int, int]  # side while training, first and last epoch; grows in steps of 32 px
    epochs: int
    optimizer: dict
    interpolation: str
    warmup_epochs: float = 1.0  # epochs
    clean_epochs: int = 0  # last epochs without mixup and erasing, at `clean_size`
    clean_size: int = 160
    batch: int = 64
    mixup: float = 0.0  # alpha; two photos faded into each other
    cutmix: float = 0.0  # alpha; a part of one photo put into another
    erasing: float = 0.0
    scale: tuple[float, float] = (0.3, 1.0)  # of the photo's area that a training crop shows
    bundled: bool = True  # whether its weights are bundled, or only its history is told
    evaluation_method: str = "grad-cam"  # the method whose maps are tested on it
    weaknesses: tuple[str, ...] = WEAKNESSES


SGD = {"opt": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
TRAIN_CONFIGS = {
    "resnet18-imagenette": TrainConfig(
        architecture="resnet18",
        arguments={},
        size=192,  # objects look smaller in whole photos than in training crops, so a larger input suits it
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
        size=224,  # the position embedding is resampled; like the ResNet it sees whole photos better a little larger
        sizes=(160, 160),
        epochs=24,
        optimizer={"opt": "adamw", "lr": 1e-3, "weight_decay": 0.02},
        batch=32,
        interpolation="bicubic",
        evaluation_method="attention-relevance",
    ),
    "resnet18-classic": TrainConfig(  # one schedule, three starts: what a pretrained backbone is worth
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


def compute_train_size(recipe: TrainConfig, epoch: int, epochs: int) -> int:
    """Side of the training photos in an epoch, in pixels."""
    if epoch >= epochs - recipe.clean_epochs:
        return recipe.clean_size
    first, last = recipe.sizes
    return round((first + (last - first) * epoch / max(epochs - 1, 1)) / 32) * 32


def resample_position_embedding(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights with a position embedding for the model's own size of photos, resampled as timm does it."""
    own = getattr(model, "pos_embed", None)
    if own is None or "pos_embed" not in weights or weights["pos_embed"].shape == own.shape:
        return weights
    grid, prefix = list(model.patch_embed.grid_size), model.num_prefix_tokens
    resampled = resample_abs_pos_embed(weights["pos_embed"].float(), grid, num_prefix_tokens=prefix)
    return {**weights, "pos_embed": resampled}


def create_train_transform(recipe: TrainConfig, size: int, clean: bool):
    """Timm's training transform: random resized crop, horizontal flip, random erasing; RGB, normalised."""
    return create_transform(
        size,
        is_training=True,
        scale=recipe.scale,
        interpolation=recipe.interpolation,
        color_jitter=None,
        re_prob=0.0 if clean else recipe.erasing,
        mean=MEAN,
        std=STD,
    )


def describe_augmentation(recipe: TrainConfig) -> list[str]:
    """What training did to each photo, in the order it was done."""
    low, high = recipe.scale
    listed = [f"random crop of {100 * low:.0f} to {100 * high:.0f} % of the area, resized", "horizontal flip"]
    listed += [f"random erasing of {100 * recipe.erasing:.0f} % of the photos"] if recipe.erasing else []
    listed += [f"mixup {recipe.mixup}"] if recipe.mixup else []
    listed += [f"cutmix {recipe.cutmix}"] if recipe.cutmix else []
    listed += [f"none of erasing and mixing in the last {recipe.clean_epochs} epochs"] if recipe.clean_epochs else []
    return [*listed, "label smoothing 0.1"]


START_LABELS = {  # how a run began, as its folder is called, and in words
    "from-scratch": "from scratch",
    "frozen-backbone": "frozen backbone",
    "fine-tuned": "everything fine-tuned",
}
COMPARISON_TEXTS = {  # what the three starts of `resnet18-classic` have in common
    "title": "The classic comparison",
    "text": "One network, the same photos, the same schedule, three starts: random weights; a backbone trained on "
    "ImageNet that stays as it is, so that only the new head learns; the same backbone with everything free to move.",
    "data": "Imagenette, 160 px (fastai)",
    "schedule": "Photos of 128 pixels, SGD with momentum 0.9, learning rate 0.02 with a cosine, batches of 64, random "
    "crops and flips, label smoothing 0.1; validation with the averaged weights, on whole photos. Imagenette's classes "
    "are ten of ImageNet's thousand, so this backbone has seen photos like these: it shows the best case.",
    "licence": "The backbone (resnet18.in1k of facebookresearch/kill-the-bits) is under CC BY-NC 4.0, so only the "
    "histories are kept here and no weights that derive from it.",
}
