"""What passes showed, gathered for all methods that want to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vizlib.attribution.methods.base import Evidence, Needs, Score
from vizlib.attribution.request import Asked, Question, kind, union
from vizlib.capture import compute_gradients
from vizlib.core.errors import MethodError
from vizlib.models.model import Model
from vizlib.models.run import Run


def how(needs: Needs) -> dict[str, bool]:
    """A graph that nobody asks would hold as much memory as a batch of passes."""
    return {"rules": needs.guided_gradient, "graph": needs.gradients}


def evidence_of(model: Model, run: Run, question: Question, asked: Sequence[Asked]) -> Evidence:
    """The run, and all the gradients the methods read, from one backward pass (another for guided backpropagation)."""
    needs = union(model, asked)
    if lacking := [name for name in needs.layers if name not in run.activations]:
        raise MethodError(f"the given run does not hold {', '.join(lacking)}; make it with layers= or run_for_all()")
    if needs.attention and not run.attention:
        raise MethodError("the given run does not hold attention; make it with attention=True or run_for_all()")
    score = question.score(kind(asked))
    return Evidence(model, run, score, **gradients_of(model, run, score, needs))


def gradients_of(model: Model, run: Run, score: Score, needs: Needs) -> dict[str, Any]:
    """`Evidence`'s gradients of a score."""
    layers = needs.layers if needs.layer_gradients else ()
    attention = run.attention if needs.attention_gradients else {}
    wanted = {
        **({"image": run.image} if needs.image_gradient else {}),
        **{("layer", name): run.activations[name] for name in layers},
        **{("attention", name): weights for name, weights in attention.items()},
    }
    found = dict(zip(wanted, run.gradients(score, of=list(wanted.values())), strict=True)) if wanted else {}
    guided = run.gradients(score, of=[run.image], rule="guided")[0] if needs.guided_gradient else None
    return {
        "image_gradient": found.get("image"),
        "guided_gradient": guided,
        "layer_gradients": {name: found["layer", name] for name in layers},
        "attention_gradients": {name: found["attention", name] for name in attention},
        "local_gradients": _local_gradients(model, run, score) if needs.local_gradients else {},
    }


def _local_gradients(model: Model, run: Run, score: Score) -> dict[str, Tensor]:
    """How each block's attention moves the score of that block's mean token (LeGrad); no other block is passed."""
    assert model.family is not None
    assert model.family.classify_tokens is not None
    found = {}
    for layer in model.stages:
        weights = {name: one for name, one in run.attention.items() if name.startswith(f"{layer}.")}
        with torch.inference_mode(False), torch.enable_grad():
            logits = model.family.classify_tokens(model.eval_module(), run.activations[layer].mean(1))
            found |= zip(weights, compute_gradients(score(logits).sum(), list(weights.values())), strict=True)
    return found


def one_of(model: Model, whole: Run, found: dict[str, Any], i: int, photo: Image.Image, score: Score) -> Evidence:
    """What one photo of a batch showed."""
    count = len(whole.image)

    def part(tensor: Tensor | None) -> Tensor | None:
        """Its rows: one, or one a window where attention is windowed."""
        return None if tensor is None else tensor.detach().unflatten(0, (count, -1))[i]

    def parts(tensors) -> dict[str, Any]:
        return {name: part(tensor) for name, tensor in tensors.items()}

    logits = whole.logits[i : i + 1].detach()
    run = Run(
        image=whole.image[i : i + 1].detach(),
        logits=logits,
        activations=parts(whole.activations),
        attention=parts(whole.attention),
        geometry=model.preprocessing.geometry(photo),
        photo=photo,
        notes=model.collect_notes(photo, logits),
    )
    of: dict[str, Any] = {name: parts(one) if isinstance(one, dict) else part(one) for name, one in found.items()}
    return Evidence(model, run, score, **of)
