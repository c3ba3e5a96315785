"""Which words of a prompt its similarity to a photo depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vizlib.attribution.methods.attention import propagate_relevance
from vizlib.capture import alter_output, compute_gradients, record_pass
from vizlib.core.errors import MethodError
from vizlib.core.images import PhotoSource, open_image
from vizlib.core.text import format_percent, make_note
from vizlib.models.clip.clip_model import ClipModel
from vizlib.models.clip.prompts import PLACEHOLDER
from vizlib.models.clip.text_tower import IDS, Tokens
from vizlib.models.evaluation_copy import is_in_training_mode, make_evaluation_copy
from vizlib.models.model import Model


@dataclass(frozen=True, eq=False)
class WordRelevance:
    """The relevance of each word of a prompt to the similarity of the prompt and a photo.

    Attributes:
        prompt: The prompt.
        words: Its words, those that the model reads.
        values: Relevance of each word: the sum over its tokens, at least 0.
        rest: Relevance of all other tokens: start, end and padding. What the token that the features are read from
            passes on to itself counts 1, and is left out.
        score: Logit of the prompt for the photo.
        model: Name of the model.
        notes: What is worth knowing, one sentence each.
    """

    prompt: str
    words: tuple[str, ...]
    values: tuple[float, ...]
    rest: float
    score: float
    model: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{word} {format_percent(share)}" for word, share in zip(self.words, self.shares, strict=True)
        )
        return f"<WordRelevance of {self.prompt!r}: {shares}>"

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each word in the relevance of all words, from 0 to 1; zeros where no word is relevant."""
        total = sum(self.values)
        return tuple(value / total if total > 0 else 0.0 for value in self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON data."""
        return {
            "model": self.model,
            "prompt": self.prompt,
            "words": list(self.words),
            "values": list(self.values),
            "shares": list(self.shares),
            "rest": self.rest,
            "score": self.score,
            "notes": list(self.notes),
        }


def explain_words(model: Model, photo: PhotoSource, target: SupportsIndex | str | None = None) -> WordRelevance:
    """Return which words of a prompt its similarity to a photo depends on.

    The relevance is propagated from the token that the text tower reads its features from to all tokens, through the
    attention weights of the text tower and their gradients, as `explain` does with the patches of the photo.

    Args:
        model: Model whose classes are prompts, of `load_clip` or `wrap_clip`.
        photo: Anything that `vizlib.open_image` takes.
        target: The prompt, or its number; by default the most probable one.

    Raises:
        MethodError: If the classes of the model are no prompts, or its text tower computes no attention.
        TargetError: If the model has no such prompt.
        ImageError: If the photo cannot be opened.

    References:
        Chefer, Gur, Wolf: Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
        Transformers, ICCV 2021, equations 5 and 6, arXiv:2103.15679.

    Example:
        >>> import numpy as np, vizlib
        >>> model = vizlib.load_clip("clip-digits").with_prompts(["a red seven", "a blue two"])
        >>> vizlib.explain_words(model, np.zeros((48, 48, 3), np.uint8), "a red seven").words
        ('a', 'red', 'seven')
    """
    clip = model.prompt_source
    if not isinstance(clip, ClipModel):
        raise MethodError(f"the classes of {model.name} are no prompts; vizlib.load_clip loads a model that reads text")
    photo = open_image(photo)
    run = model.run(photo, ["visual"], graph=False)
    prompt = model.labels[model.resolve_target(target, run.logits)]
    image = F.normalize(run.activations["visual"][0].float(), dim=-1)
    tokens = clip.text.tokenize([prompt])
    relevance, score = _compute_token_relevance(clip, tokens, image)
    places = clip.text.locate_words(prompt)
    values = tuple(relevance[place.start : place.stop].sum().item() for place in places)
    notes = list(model.notes)
    if clip.templates != (PLACEHOLDER,):
        notes.append(make_note("prompts.words-without-templates"))
    words = tuple(place.word for place in places)
    return WordRelevance(prompt, words, values, relevance.sum().item() - sum(values), score, model.name, tuple(notes))


def _compute_token_relevance(
    clip: ClipModel, tokens: Tokens, image: Float[Tensor, " width"]
) -> tuple[Float[Tensor, " token"], float]:
    """Return the relevance of each token of one text to its similarity to the features of a photo, and the logit."""
    module = make_evaluation_copy(clip.module) if is_in_training_mode(clip.module) else clip.module
    embedding = clip.text.embedding

    def restart_graph(output: Tensor) -> Tensor:
        """Return a layer's output as a leaf: nothing before it needs gradients, and weights may be frozen."""
        return output.detach().clone().requires_grad_()

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        alter_output(module, embedding, restart_graph),
        record_pass(module, attention=True, rules=False) as recording,
    ):
        features = F.normalize(clip.text.encode(module, tokens).float(), dim=-1)
        logit = (clip.scale * features[0] @ image + clip.bias).sum()
    attention = _select_text_attention(recording.attention, tokens)
    if not attention:
        raise MethodError(f"the text tower of {clip.name} computes no attention among its tokens that can be recorded")
    gradients = compute_gradients(logit, list(attention.values()), retain_graph=False)
    layers = [weights[0].detach().float() for weights in attention.values()]
    gradients = [gradient[0].float() for gradient in gradients]
    rows = _find_read_tokens(gradients[-1])
    start = rows.float() / rows.sum().clamp(min=1)
    return propagate_relevance(layers, gradients, start) - start, logit.item()


def _select_text_attention(attention: Mapping[str, Tensor], tokens: Tokens) -> dict[str, Tensor]:
    """Return the attention weights among all tokens of one text, by layer; some towers add a token of their own."""
    count = tokens[IDS].shape[1]
    found = {name: weights for name, weights in attention.items() if weights.shape[-1] == weights.shape[-2] >= count}
    size = {weights.shape[-1] for weights in found.values()}
    return found if len(size) == 1 else {}


def _find_read_tokens(gradient: Float[Tensor, "heads query key"]) -> Tensor:
    """Return which tokens of the last layer the features are read from: those whose attention has a gradient."""
    return gradient.abs().sum((0, 2)) > 0
