"""Adversarial examples: photos changed imperceptibly so that the model predicts another class."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image

from vizlib.capture import compute_gradients
from vizlib.core.errors import VizlibError
from vizlib.models.model import Model
from vizlib.models.preprocessing import TimmPreprocessing
from vizlib.models.preprocessing_formats.resize_crop import CenterCrop, ResizeCropPreprocessing


def pgd(model: Model, photo: Image.Image, target: int, against: int, *, levels: int = 2, steps: int = 8) -> Image.Image:
    """Return an adversarial example: the model's view of a photo, changed so that `target` exceeds `against`.

    Projected gradient descent under a maximum norm. Every step follows the sign of the gradient of the difference of
    the two logits, then clips each pixel to the allowed change.

    Args:
        model: The classifier.
        photo: Upright RGB photo.
        target: Index of the class whose logit is raised.
        against: Index of the class whose logit is lowered.
        levels: Maximum change of a pixel's colour channel, in steps of 1/255.
        steps: Number of gradient steps.

    Returns:
        A photo of the size of the model's input, with 8-bit colours. Predict on it with `bypass_resizing(model)`,
        otherwise it is resized again.

    Raises:
        VizlibError: For fewer than one level or step.
        ModelError: If the model cannot be run.

    References:
        Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks, ICLR
        2018, arXiv:1706.06083.
    """
    if levels < 1 or steps < 1:
        raise VizlibError(f"PGD changes a photo by at least 1 level in at least 1 step, not {levels} in {steps}")
    image = model.tensor(photo)
    std = torch.tensor(model.preprocessing.std, dtype=torch.float32, device="cpu")
    level = (1 / 255 / std.view(1, 3, 1, 1)).to(image)
    adversarial = image
    for _ in range(steps):
        input_on_graph, logits, _ = model.forward(adversarial)
        (gradient,) = compute_gradients((logits[:, target] - logits[:, against]).sum(), [input_on_graph])
        moved = adversarial + 1.5 * levels / steps * level * gradient.sign()
        adversarial = torch.maximum(torch.minimum(moved, image + levels * level), image - levels * level)
    return model.preprocessing.denormalise(adversarial)


def bypass_resizing(model: Model) -> Model:
    """Return the model for adversarial examples, which have the size of its input: nothing is resized or cropped."""
    if isinstance(model.preprocessing, ResizeCropPreprocessing):
        crop = CenterCrop(model.preprocessing.input_size)
        return replace(model, preprocessing=replace(model.preprocessing, steps=(crop,)))
    preprocessing = TimmPreprocessing(
        input_size=model.preprocessing.input_size,
        interpolation="bilinear",  # not used, as nothing is resized
        crop_pct=1.0,
        crop_mode="center",
        mean=model.preprocessing.mean,
        std=model.preprocessing.std,
    )
    return replace(model, preprocessing=preprocessing)
