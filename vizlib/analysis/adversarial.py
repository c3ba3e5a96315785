"""A photo changed by less than anybody sees, so that the model gives another answer: why a map is no proof."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image

from vizlib.capture import compute_gradients
from vizlib.core.errors import VizlibError
from vizlib.models.model import Model


def pgd(model: Model, photo: Image.Image, target: int, against: int, *, levels: int = 2, steps: int = 8) -> Image.Image:
    """What the model sees of a photo, each pixel moved by at most `levels` of 255 so that `target` beats `against`.

    Every step follows the sign of the gradient of the two logits' difference. The picture has the size of the model's
    input, and its colours are whole numbers again; show it to `unprepared(model)`, or it would be resized once more.

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu: Towards Deep Learning Models Resistant to Adversarial Attacks,
    ICLR 2018. Raises: VizlibError for fewer than one level or step, ModelError.
    """
    if levels < 1 or steps < 1:
        raise VizlibError(f"a photo is nudged by at least 1 level in at least 1 step, not {levels} in {steps}")
    image = model.tensor(photo)
    level = (1 / 255 / torch.tensor(model.preprocessing.std).view(1, 3, 1, 1)).to(image)
    now = image
    for _ in range(steps):
        seen, logits, _ = model.forward(now)
        (gradient,) = compute_gradients((logits[:, target] - logits[:, against]).sum(), [seen])
        moved = now + 1.5 * levels / steps * level * gradient.sign()
        now = torch.maximum(torch.minimum(moved, image + levels * level), image - levels * level)
    return model.preprocessing.denormalise(now)


def bypass_resizing(model: Model) -> Model:
    """The same model for pictures that already have the size of its input: nothing is resized or cropped."""
    return replace(model, preprocessing=replace(model.preprocessing, crop_pct=1.0, crop_mode="center"))
