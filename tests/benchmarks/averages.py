"""Integrated gradients and SmoothGrad against captum: how long, and how near to the truth.

Integrated gradients is held against a reference of 500 steps in single precision (kept in a temporary file), SmoothGrad
against plain gradients in single precision at the same noisy inputs. Captum is timed with its default batch, all at
once, and with 8 at a time, and the quicker counts. A GPU that would round what convolutions read to ten bits (TF32, as
PyTorch lets it) is told not to: single precision is what is compared.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from common import DATA, at_least, at_most, interleaved, options, pearson, photos, resnet, show
from torch import Tensor

import vizlib
from vizlib.attribution.methods.scoring import make_random_generator
from vizlib.models.inference.batched_inference import DEFAULT_BUDGET_MB, benefits_from_bfloat16

COLUMNS = ("method", "ours (min–max)", "captum (min–max)", "ours ÷ captum", "goal", "met")
COLUMNS += ("correlation with reference", "captum's", "goal", "met")


def main() -> None:
    """Print the table."""
    more = {
        "photos": (3, "how many photos the correlations are the mean of"),
        "budget": (DEFAULT_BUDGET_MB, "our budget_mb"),
    }
    given = options(__doc__, repeats=5, **more)
    torch.backends.cudnn.allow_tf32 = False
    model, shown = resnet(given.device), photos(1 if given.quick else given.photos)
    rows = [*_integrated_gradients(model, shown, given), *_smoothgrad(model, shown, given)]
    about = f"{model.name} at 224 px, budget_mb={given.budget}; correlations are the mean of {len(shown)} photos."
    show(COLUMNS, rows, given, about)


def _integrated_gradients(model, shown, given) -> list[tuple]:
    steps, exact = (4, 8) if given.quick else (50, 500)
    peer = IntegratedGradients(model.module)
    mean_colour, std = (torch.tensor(values).view(1, 3, 1, 1) for values in _colours(model))
    black = ((0 - mean_colour) / std).to(model.reference_tensor()).expand(1, 3, 224, 224)

    def theirs(photo, count: int, batch: int | None) -> Tensor:
        how = {"target": _top(model, photo), "n_steps": count, "internal_batch_size": batch}
        attribution = peer.attribute(model.tensor(photo), baselines=black, **how)
        assert isinstance(attribution, Tensor)
        return attribution.detach()[0].sum(0)

    references = [_kept(photo, exact, given, partial(theirs, photo, exact, 10)) for photo in shown]
    captum = [pearson(theirs(photo, steps, 8), one) for photo, one in zip(shown, references, strict=True)]
    knobs = {"steps": 4} if given.quick else {}
    batches = {"all": partial(theirs, shown[0], steps, None), "eight": partial(theirs, shown[0], steps, 8)}
    title = f"integrated gradients, {knobs.get('steps', 40)} steps (captum {steps})"
    return _compare(model, shown, "integrated-gradients", title, batches, references, mean(captum), 0.6, given, knobs)


def _smoothgrad(model, shown, given) -> list[tuple]:
    samples = 4 if given.quick else 25
    peer = NoiseTunnel(Saliency(model.module))

    def theirs(photo, batch: int | None) -> Tensor:
        image = model.tensor(photo)
        how = {"nt_samples": samples, "nt_samples_batch_size": batch, "stdevs": _width(image)}
        attribution = peer.attribute(image, target=_top(model, photo), abs=False, **how)
        assert isinstance(attribution, Tensor)
        return attribution

    references = [_plain(model, photo, samples) for photo in shown]
    batches = {"all": partial(theirs, shown[0], None), "eight": partial(theirs, shown[0], 8)}
    title, knobs = f"smoothgrad, {samples} samples", {"samples": samples}
    return _compare(model, shown, "smoothgrad", title, batches, references, None, 0.8, given, knobs)


def _compare(model, shown, method, title, batches, references, captum, goal, given, knobs) -> list[tuple]:
    """Two rows: in single precision, as it is by default, and in bfloat16 where there are instructions for it."""
    ours: Any = partial(vizlib.explain, model, method=method, budget_mb=given.budget, **knobs)
    precisions = ("float32", "fast") if benefits_from_bfloat16(model) else ("float32",)
    runs = {precision: partial(ours, shown[0], precision=precision) for precision in precisions}
    found = interleaved(given.repeats, given.device, **runs, **batches)
    theirs = min((found[name] for name in batches), key=lambda one: one.median)
    rows = []
    for precision in precisions:
        share = found[precision].median / theirs.median
        heats = [ours(photo, precision=precision).heat for photo in shown]
        like = mean(pearson(heat, one) for heat, one in zip(heats, references, strict=True))
        # Integrated gradients must be as near to the integral as captum's; SmoothGrad is the same sum.
        least = 0.999 if captum is None else round(captum, 4)
        near = at_least(round(like, 4), least) if precision == "float32" else ("", "")
        speed = (f"{share:.2f}", *at_most(share, goal))
        peer = "" if captum is None else f"{captum:.4f}"
        rows.append((f"{title}, {precision}", found[precision], theirs, *speed, f"{like:.4f}", peer, *near))
    return rows


def _plain(model, photo, samples: int) -> Tensor:
    """SmoothGrad by its definition, one noisy input after the other."""
    image, target = model.tensor(photo), _top(model, photo)
    total = torch.zeros_like(image)
    for sample in range(samples):
        noise = torch.from_numpy(make_random_generator(0, sample).standard_normal(image.shape[1:], np.float32)).to(
            image
        )
        noisy = (image + _width(image) * noise).requires_grad_()
        total += torch.autograd.grad(model.module(noisy)[0, target], noisy)[0]
    return (total / samples)[0].abs().amax(0)


def _width(image: Tensor) -> float:
    return 0.15 * (image.max() - image.min()).item()


def _colours(model) -> tuple:
    return model.preprocessing.mean, model.preprocessing.std


def _top(model, photo) -> int:
    return model.predict(photo, top=1)[0].index


def _kept(photo, steps: int, given, make) -> Tensor:
    """A reference from its file, or made and written there."""
    key = hashlib.sha256(f"{photo.size}, {steps}, {given.device}, {DATA}".encode() + photo.tobytes()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"vizlib-reference-{key}.npy"
    if not file.exists():
        np.save(file, make().cpu().numpy())
    return torch.from_numpy(np.load(file))


if __name__ == "__main__":
    main()
