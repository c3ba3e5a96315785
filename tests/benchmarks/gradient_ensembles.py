"""Integrated gradients and SmoothGrad relative to captum: time and accuracy.

Integrated gradients is compared with a reference of 500 steps in single precision (stored in a temporary file),
SmoothGrad with plain gradients in single precision at the same noisy inputs. Captum is timed with its default batch,
which has all inputs, and with batches of 8; the faster one counts. TF32, in which a GPU rounds the inputs of
convolutions to ten bits by default in PyTorch, is switched off, as single precision is compared.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from common import (
    DATA,
    check_at_least,
    check_at_most,
    load_photos,
    load_resnet,
    parse_options,
    pearson,
    print_table,
    time_alternately,
)
from torch import Tensor

import vizlib
from vizlib.attribution.methods.scoring import make_random_generator
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB, benefits_from_bfloat16

COLUMNS = ("method", "vizlib (min–max)", "captum (min–max)", "vizlib ÷ captum", "goal", "met")
COLUMNS += ("correlation with reference", "that of captum", "goal", "met")


def main() -> None:
    """Print the table."""
    more = {
        "photos": (3, "number of photos over which the correlations are averaged"),
        "budget": (DEFAULT_BUDGET_MB, "budget_mb of vizlib"),
    }
    options = parse_options(__doc__, repeats=5, **more)
    torch.backends.cudnn.allow_tf32 = False
    model, photos = load_resnet(options.device), load_photos(1 if options.quick else options.photos)
    rows = [*_compare_integrated_gradients(model, photos, options), *_compare_smoothgrad(model, photos, options)]
    note = f"{model.name} at 224 px, budget_mb={options.budget}; correlations are the mean of {len(photos)} photos."
    print_table(COLUMNS, rows, options, note)


def _compare_integrated_gradients(model, photos, options) -> list[tuple]:
    steps, reference_steps = (4, 8) if options.quick else (50, 500)
    peer = IntegratedGradients(model.module)
    mean_colour, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std)
    )
    black = ((0 - mean_colour) / std).to(model.reference_tensor()).expand(1, 3, 224, 224)

    def run_captum(photo, count: int, batch: int | None) -> Tensor:
        arguments = {"target": _predict_class(model, photo), "n_steps": count, "internal_batch_size": batch}
        attribution = peer.attribute(model.tensor(photo), baselines=black, **arguments)
        assert isinstance(attribution, Tensor)
        return attribution.detach()[0].sum(0)

    references = [
        _load_reference(photo, reference_steps, options, partial(run_captum, photo, reference_steps, 10))
        for photo in photos
    ]
    correlation = mean(
        pearson(run_captum(photo, steps, 8), reference) for photo, reference in zip(photos, references, strict=True)
    )
    parameters = {"steps": 4} if options.quick else {}
    batches = {"all": partial(run_captum, photos[0], steps, None), "eight": partial(run_captum, photos[0], steps, 8)}
    title = f"integrated gradients, {parameters.get('steps', 40)} steps (captum {steps})"
    ours = partial(vizlib.explain, model, method="integrated-gradients", budget_mb=options.budget, **parameters)
    return _make_rows(model, photos, options, title, ours, batches, references, correlation, goal=0.6)


def _compare_smoothgrad(model, photos, options) -> list[tuple]:
    samples = 4 if options.quick else 25
    peer = NoiseTunnel(Saliency(model.module))

    def run_captum(photo, batch: int | None) -> Tensor:
        image = model.tensor(photo)
        arguments = {"nt_samples": samples, "nt_samples_batch_size": batch, "stdevs": _compute_noise_std(image)}
        attribution = peer.attribute(image, target=_predict_class(model, photo), abs=False, **arguments)
        assert isinstance(attribution, Tensor)
        return attribution

    references = [_compute_smoothgrad(model, photo, samples) for photo in photos]
    batches = {"all": partial(run_captum, photos[0], None), "eight": partial(run_captum, photos[0], 8)}
    ours = partial(vizlib.explain, model, method="smoothgrad", budget_mb=options.budget, samples=samples)
    return _make_rows(
        model, photos, options, f"smoothgrad, {samples} samples", ours, batches, references, None, goal=0.8
    )


def _make_rows(
    model,
    photos,
    options,
    title: str,
    ours: Callable[..., Any],
    batches: dict[str, Callable[[], Tensor]],
    references: list[Tensor],
    captum_correlation: float | None,
    *,
    goal: float,
) -> list[tuple]:
    """Return two rows: in single precision, the default, and in bfloat16 if the processor supports it."""
    precisions = ("float32", "fast") if benefits_from_bfloat16(model) else ("float32",)
    runs = {precision: partial(ours, photos[0], precision=precision) for precision in precisions}
    timings = time_alternately(options.repeats, options.device, **runs, **batches)
    captum = min((timings[name] for name in batches), key=lambda timing: timing.median)
    rows = []
    for precision in precisions:
        ratio = timings[precision].median / captum.median
        heats = [ours(photo, precision=precision).heat for photo in photos]
        correlation = mean(pearson(heat, reference) for heat, reference in zip(heats, references, strict=True))
        # Integrated gradients must be as close to the integral as captum's; SmoothGrad is the same sum.
        minimum = 0.999 if captum_correlation is None else round(captum_correlation, 4)
        accuracy = check_at_least(round(correlation, 4), minimum) if precision == "float32" else ("", "")
        speed = (f"{ratio:.2f}", *check_at_most(ratio, goal))
        peer = "" if captum_correlation is None else f"{captum_correlation:.4f}"
        rows.append(
            (f"{title}, {precision}", timings[precision], captum, *speed, f"{correlation:.4f}", peer, *accuracy)
        )
    return rows


def _compute_smoothgrad(model, photo, samples: int) -> Tensor:
    """Return SmoothGrad by its definition, one noisy input after the other."""
    image, target = model.tensor(photo), _predict_class(model, photo)
    total = torch.zeros_like(image)
    for sample in range(samples):
        noise = make_random_generator(0, sample).standard_normal(image.shape[1:], np.float32)
        noisy = (image + _compute_noise_std(image) * torch.from_numpy(noise).to(image)).requires_grad_()
        total += torch.autograd.grad(model.module(noisy)[0, target], noisy)[0]
    return (total / samples)[0].abs().amax(0)


def _compute_noise_std(image: Tensor) -> float:
    return 0.15 * (image.max() - image.min()).item()


def _predict_class(model, photo) -> int:
    return model.predict(photo, top=1)[0].index


def _load_reference(photo, steps: int, options, compute: Callable[[], Tensor]) -> Tensor:
    """Return a reference from its file, computing and writing it first if there is none."""
    key = hashlib.sha256(f"{photo.size}, {steps}, {options.device}, {DATA}".encode() + photo.tobytes()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"vizlib-reference-{key}.npy"
    if not file.exists():
        np.save(file, compute().cpu().numpy())
    return torch.from_numpy(np.load(file))


if __name__ == "__main__":
    main()
