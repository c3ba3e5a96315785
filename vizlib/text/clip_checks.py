"""Checks of a network that compares images with texts: that what is recorded of it is what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vizlib.capture import alter_output, compute_gradients, record_pass
from vizlib.core.images import PhotoSource, open_image
from vizlib.models.clip.clip_model import ClipModel
from vizlib.models.clip.text_tower import IDS

PROMPTS = ("a photo of a church", "a photo of a dog", "a photo of a red car", "a diagram")
MAX_ERROR = 1e-5


class ClipCheck(NamedTuple):
    """The result of one check.

    Attributes:
        name: What is checked.
        value: What was measured.
        limit: What it must not exceed; for gradients, what it must exceed.
        passed: Whether the check passed.
    """

    name: str
    value: float
    limit: float
    passed: bool


def check_clip(clip: ClipModel, photo: PhotoSource, prompts: Sequence[str] = PROMPTS) -> list[ClipCheck]:
    """Return whether scores, attention weights and gradients of a network are read as it computes them.

    Checked are that recording changes no score, that the attention weights of both towers sum to 1, that every
    attention layer has a gradient in both towers although their weights may be frozen, and that probabilities and
    ranking are those of the network's own `forward`.

    Args:
        clip: The network.
        photo: Anything that `vizlib.open_image` takes.
        prompts: At least two texts.

    Raises:
        ModelError: If the network cannot be run.
        TargetError: If its tokenizer refuses a prompt.
    """
    model, photo = clip.with_prompts(prompts), open_image(photo)
    images = model.tensor(photo)
    plain = model.logits(images)
    run = model.run(photo, attention=True)
    own = _compute_own_logits(clip, images, model.labels)
    checks = [
        _limit("scores change by recording", ((run.logits - plain) / clip.scale).abs().max().item()),
        _limit("image attention: distance of the sums of its rows from 1", _measure_row_sums(run.attention)),
        _exceed(
            "image attention: smallest gradient of a layer",
            _measure_gradients(run.logits[0, 0], run.attention),
        ),
    ]
    tokens = clip.text.tokenize(model.labels[:1])
    with (
        torch.enable_grad(),
        alter_output(clip.module, clip.text.embedding, lambda output: output.detach().clone().requires_grad_()),
        record_pass(clip.module, attention=True, rules=False) as recording,
    ):
        features = clip.text.encode(clip.module, tokens)
        score = torch.cosine_similarity(features.float(), model.module.get_parameter("classifier.weight")[1:2])[0]
    checks += [
        _limit("text attention: distance of the sums of its rows from 1", _measure_row_sums(recording.attention)),
        _exceed("text attention: smallest gradient of a layer", _measure_gradients(score, recording.attention)),
    ]
    probabilities = model.compute_probabilities(plain)[0]
    theirs = model.compute_probabilities(own)[0]
    checks.append(_limit("probabilities differ from those of the network", (probabilities - theirs).abs().max().item()))
    same_order = bool((plain[0].argsort(descending=True) == own[0].argsort(descending=True)).all())
    checks.append(ClipCheck("ranking differs from that of the network", float(not same_order), 0.0, same_order))
    return checks


def _compute_own_logits(clip: ClipModel, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the logits of the network's own `forward` for one image."""
    module: Any = clip.module
    tokens = clip.text.tokenize(prompts)
    with torch.no_grad():
        if hasattr(module, "get_text_features"):
            return module(pixel_values=images, **tokens).logits_per_image
        image, text = module.encode_image(images), module.encode_text(tokens[IDS])
        image, text = (features / features.norm(dim=-1, keepdim=True) for features in (image, text))
        logits = module.logit_scale.exp() * image @ text.T
        return logits if getattr(module, "logit_bias", None) is None else logits + module.logit_bias


def _measure_row_sums(attention: Mapping[str, Tensor]) -> float:
    """Return the largest distance from 1 of the sum of a row of attention weights; infinite without any."""
    return max(((weights.detach().sum(-1) - 1).abs().max().item() for weights in attention.values()), default=torch.inf)


def _measure_gradients(score: Tensor, attention: Mapping[str, Tensor]) -> float:
    """Return the smallest, over layers, of the largest gradient at attention weights; 0 without any."""
    if not attention:
        return 0.0
    gradients = compute_gradients(score, list(attention.values()))
    return min(gradient.abs().max().item() for gradient in gradients)


def _limit(name: str, value: float) -> ClipCheck:
    """Return a check that a value is small."""
    return ClipCheck(name, value, MAX_ERROR, value <= MAX_ERROR)


def _exceed(name: str, value: float) -> ClipCheck:
    """Return a check that a value is above 0."""
    return ClipCheck(name, value, 0.0, value > 0)
