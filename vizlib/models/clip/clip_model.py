"""`ClipModel`: a network that compares images with texts, and makes a classifier of any list of prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.core.errors import ImageError, ModelError
from vizlib.core.images import PhotoSource
from vizlib.core.text import Note, Phrase, make_note
from vizlib.models.clip.prompt_classifier import PromptClassifier, PromptScores
from vizlib.models.clip.prompts import PLACEHOLDER, Templates, check_prompts, read_templates
from vizlib.models.clip.text_tower import TextTower
from vizlib.models.evaluation_copy import is_in_training_mode, make_evaluation_copy
from vizlib.models.model import Model
from vizlib.models.output_kind import get_output_kind
from vizlib.models.preprocessing import Preprocessing
from vizlib.models.run import Prediction

TEXTS_PER_BATCH = 64
MAX_CACHED_TEXTS = 20_000  # about 40 MB of features
MAX_NAMED_PROMPTS = 3  # in a note
DEFAULT_PROMPT = "a photo"  # to measure the layers with, where no other is given
BASE = "base"


class PhotoMatch(NamedTuple):
    """How well one of several photos fits a text.

    Attributes:
        index: Index of the photo.
        probability: Its probability among the photos, 0 to 1; of a sigmoid model that it fits.
        cosine: Cosine of the features of photo and text, from -1 to 1.
    """

    index: int
    probability: float
    cosine: float


@dataclass(frozen=True, eq=False)
class ClipModel:
    """A network with an image tower and a text tower, which itself is never modified.

    Made by `vizlib.load_clip` and `vizlib.wrap_clip`.

    Attributes:
        module: The network, in whatever mode it was given.
        name: Name for tables, messages and repr.
        visual: Its image tower.
        text: Its text tower.
        preprocessing: Transform from a photo to the input of the image tower, and its geometry.
        scale: Factor of the cosine in the logits: the inverse of the temperature.
        bias: What is added to it, as in SigLIP; otherwise 0.
        output_kind: `"softmax"` where one of the prompts is right, `"sigmoid"` where each is judged on its own.
        templates: Templates that each prompt is put into; its features are the mean of theirs.
        default_prompts: Prompts to begin with; empty where there are none.
        notes: What had to be assumed, one sentence each.
        is_wrapped: Whether `wrap_clip` was given the network, so that code cannot load it by name.

    Example:
        >>> import vizlib
        >>> clip = vizlib.load_clip("clip-digits")
        >>> model = clip.with_prompts(["a red seven", "a blue two"])
        >>> model.labels
        ('a red seven', 'a blue two')
    """

    module: nn.Module
    name: str
    visual: nn.Module
    text: TextTower
    preprocessing: Preprocessing
    scale: Tensor
    bias: Tensor
    output_kind: str = "softmax"
    templates: tuple[str, ...] = (PLACEHOLDER,)
    default_prompts: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    is_wrapped: bool = False
    measured_by: Model | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        height, width = self.preprocessing.input_size
        return f"<ClipModel {self.name}: {type(self.module).__name__}, input {height} × {width}>"

    def with_templates(self, templates: Templates) -> ClipModel:
        """Return this network with other templates.

        Args:
            templates: `"openai"` for the 80 that CLIP's authors use on ImageNet, `"simple"` for their seven best, a
                list of texts with `{}` where the prompt is put, or `None` for the prompts as they are.

        Raises:
            TargetError: For an unknown name, or a template without exactly one `{}`.
        """
        return replace(self, templates=read_templates(templates), measured_by=self._measured.get(BASE))

    def with_prompts(self, prompts: Iterable[str], templates: Templates = None) -> Model:
        """Return an ordinary model whose classes are prompts, for `explain` and everything else.

        The outputs are CLIP's logits: the cosine of image and prompt, times the scale of the network, plus its bias. A
        single prompt has no probability unless the network is a sigmoid one; its similarity is what is explained.

        Args:
            prompts: Texts, all different.
            templates: As in `with_templates`; by default those of this object.

        Raises:
            TargetError: If the prompts or templates cannot be used.
            ModelError: If the network fails.

        References:
            Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
            arXiv:2103.00020. Zhai et al.: Sigmoid Loss for Language Image Pre-Training, ICCV 2023, arXiv:2303.15343.
        """
        if templates is not None:
            return self.with_templates(templates).with_prompts(prompts)
        labels = check_prompts(prompts)
        notes = (*self.notes, *self._list_notes(labels))
        base = self._get_base(labels[:1])
        return replace(self._make_model(labels), notes=notes, family=base.family, measured_by=base)

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Return the features of texts, each of length 1: the mean over the templates.

        Features are kept, so that a long vocabulary is encoded once.

        Args:
            texts: Texts, as they are.

        Raises:
            TargetError: If the tokenizer refuses a text.
            ModelError: If the network fails.
        """
        cache = self._features
        missing = list(dict.fromkeys(text for text in texts if text not in cache))
        found = {text: cache[text] for text in texts if text in cache}
        for start in range(0, len(missing), TEXTS_PER_BATCH):
            batch = missing[start : start + TEXTS_PER_BATCH]
            found.update(zip(batch, self._encode_batch(batch), strict=True))
        cache.update(found)
        while len(cache) > MAX_CACHED_TEXTS:
            cache.popitem(last=False)
        return torch.stack([found[text] for text in texts])

    def encode_photo(self, photo: PhotoSource) -> Float[Tensor, " width"]:
        """Return the features of a photo, of length 1.

        Args:
            photo: Anything that `vizlib.open_image` takes.

        Raises:
            ImageError: If the photo cannot be opened.
            ModelError: If the network fails.
        """
        return self._encode_photo(photo, self._get_base(self.default_prompts[:1] or (DEFAULT_PROMPT,)))

    def rank_texts(self, photo: PhotoSource, texts: Iterable[str], top: int = 5) -> list[Prediction]:
        """Return the texts of a vocabulary that fit a photo best, best first, with their probabilities among all.

        Args:
            photo: Anything that `vizlib.open_image` takes.
            texts: Any number of texts, all different.
            top: How many to return.

        Raises:
            TargetError: If a text cannot be used.
            ImageError: If the photo cannot be opened.
        """
        labels = check_prompts(texts, max_prompts=None)
        cosines = self.encode_texts(labels) @ self._encode_photo(photo, self._get_base(labels[:1]))
        return get_output_kind(self.output_kind).predict(self.scale * cosines + self.bias, labels, top)

    def rank_photos(self, text: str, photos: Sequence[PhotoSource]) -> list[PhotoMatch]:
        """Return how well each photo fits a text, best first.

        Args:
            text: The text.
            photos: One or more photos; the probabilities of a softmax model are among these.

        Raises:
            TargetError: If the text cannot be used.
            ImageError: If there are no photos, or one cannot be opened.
        """
        (label,) = check_prompts([text])
        if not photos:
            raise ImageError("there are no photos to compare with the text; give at least one")
        base = self._get_base((label,))
        features = torch.stack([self._encode_photo(photo, base) for photo in photos])
        cosines = features @ self.encode_texts([label])[0]
        logits = self.scale * cosines + self.bias
        probabilities = logits.sigmoid() if self.output_kind == "sigmoid" else logits.softmax(0)
        order = logits.argsort(descending=True, stable=True).tolist()
        return [PhotoMatch(i, probabilities[i].item(), cosines[i].item()) for i in order]

    @cached_property
    def _features(self) -> OrderedDict[str, Tensor]:
        """The features of texts that were encoded, the oldest first."""
        return OrderedDict()

    @cached_property
    def _measured(self) -> dict[str, Model]:
        """The model of `_get_base` under `BASE`, once it is made."""
        return {} if self.measured_by is None else {BASE: self.measured_by}

    def _get_base(self, prompts: Sequence[str]) -> Model:
        """Return the model that holds what all lists of prompts have in common: family, and summary of the layers.

        Args:
            prompts: Those that it is made with, if it is not made yet.
        """
        if BASE not in self._measured:
            model = self._make_model(tuple(map(Phrase, prompts)))
            self._measured[BASE] = replace(model, family=model.find_family())
        return self._measured[BASE]

    def _encode_photo(self, photo: PhotoSource, base: Model) -> Float[Tensor, " width"]:
        """Return the features of a photo, computed by any model of this network."""
        run = base.run(photo, ["visual"], graph=False)
        return F.normalize(run.activations["visual"][0].float(), dim=-1)

    def _make_model(self, labels: tuple[Phrase, ...]) -> Model:
        """Return the model of some prompts, without what takes a pass of the image tower to find."""
        classifier = PromptClassifier(self.visual, PromptScores(self.encode_texts(labels), self.scale, self.bias))
        has_probability = len(labels) > 1 or self.output_kind == "sigmoid"
        return Model(
            classifier,
            self.name,
            labels,
            self.preprocessing,
            output_kind=self.output_kind if has_probability else "values",
            is_wrapped=self.is_wrapped,
            prompt_source=self,
        )

    def _encode_batch(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Return the features of a few texts."""
        module = self.module
        if is_in_training_mode(module):
            module = make_evaluation_copy(module)
        tower = replace(self.text, module=module)
        total = None
        try:
            with torch.no_grad(), torch.autocast(self.scale.device.type, enabled=False):
                for template in self.templates:
                    features = tower.compute_features([template.replace(PLACEHOLDER, text) for text in texts])
                    total = features if total is None else total + features
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"the text tower of {self.name} cannot be run: {reason}") from error
        assert total is not None
        return F.normalize(total, dim=-1)

    def _list_notes(self, labels: Sequence[str]) -> list[Note]:
        """Return what is worth knowing about a list of prompts."""
        truncated = [label for label in labels if self.text.is_truncated(label)]
        notes = []
        if truncated:
            names = ", ".join(f"“{name[:40]}…”" for name in truncated[:MAX_NAMED_PROMPTS])
            notes.append(make_note("prompts.truncated", count=len(truncated), names=names))
        if self.templates != (PLACEHOLDER,):
            notes.append(make_note("prompts.templates", count=len(self.templates)))
        return notes
