"""Explain any number of photos one after another, with memory for a few of them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from vizlib.attribution.explain import explain
from vizlib.attribution.methods.registry import METHODS, choose_default_method
from vizlib.attribution.result import Attribution
from vizlib.attribution.target import bind_function
from vizlib.core.errors import ImageError, TargetError
from vizlib.core.images import open_image
from vizlib.models.model import Model

# Photos that share passes and are in memory at once, as long as they are small.
MAX_PHOTOS_AT_ONCE = 16
MAX_PIXELS_AT_ONCE = 24_000_000  # 96 MB of decoded photos, and as much while they are prepared


class _Question(NamedTuple):
    """A photo of a stream, opened, and the classes that its map is about."""

    photo: Image.Image
    target: Any
    against: Any


def explain_each(
    model: Model,
    photos: Iterable[Any],
    method: str | None = None,
    target: Any = None,
    against: Any = None,
    *,
    target_name: str | None = None,
    **parameters: Any,
) -> Generator[Attribution, None, None]:
    """Yield the attribution of each photo as `explain` returns it, in order, with memory for a few photos only.

    Photos are opened when their turn comes, and small ones share passes. An attribution holds its photo, so drop it
    when it is saved.

    Args:
        model: The model.
        photos: Photos as `open_image` accepts them, in a list, generator or any other iterable.
        method: Name of the method; by default as in `explain`.
        target: As in `explain`: one for all photos, or a list of one for each.
        against: As in `explain`: one for all photos, or a list of one for each.
        target_name: As in `explain`.
        **parameters: Parameters of the method.

    Raises:
        ImageError: If a photo cannot be used, after the attributions of those before it. To leave such photos out, open
            them with `open_image` in a generator of your own.
        TargetError: For a class that the model does not have, or a list that is not as long as the photos are many.
        MethodError: As `explain`, before the first photo is opened.

    Example:
        >>> import vizlib
        >>> from gradio.media import get_image
        >>> model = vizlib.load("resnet18-imagenette")
        >>> photos = (get_image(name) for name in ("tower.jpg", "cheetah.jpg"))
        >>> [why.heat.shape for why in vizlib.explain_each(model, photos, target="church")]
        [torch.Size([6, 6]), torch.Size([6, 6])]
    """
    if not isinstance(target, (list, tuple)):
        model, target = bind_function(model, target, target_name, None)
        target_name = None
    method = method or choose_default_method(model)
    METHODS.resolve_method(model, method, parameters)
    if target_name is not None:
        parameters["target_name"] = target_name
    is_array = isinstance(photos, (np.ndarray, Tensor))
    if isinstance(photos, (str, bytes, os.PathLike, Image.Image)) or (is_array and photos.ndim < 4):
        raise ImageError("explain_each takes several photos, such as a list of paths; explain takes one")
    return _explain_in_parts(model, _open_each(photos, target, against), method, parameters)


def _open_each(photos: Iterable[Any], target: Any, against: Any) -> Iterator[_Question]:
    """Yield each photo of a stream, opened, with its classes."""
    targets, contrasts = _iterate(target), _iterate(against)
    count = 0
    for count, photo in enumerate(photos, 1):
        classes = next(targets, None), next(contrasts, None)
        if classes[0] is None or classes[1] is None:
            raise TargetError(
                f"there are at least {count} photos, but fewer classes; give one for each, or one for all"
            )
        yield _Question(open_image(photo), *classes[0], *classes[1])
    for selectors, name in ((target, "target"), (against, "against")):
        if isinstance(selectors, (list, tuple)) and len(selectors) > count:
            raise TargetError(f"{name} holds {len(selectors)} classes for {count} photos; give one for each")


def _iterate(selectors: Any) -> Iterator[tuple[Any]]:
    """Return an iterator over the class of each photo in a stream: those of a list, or one for all."""
    return zip(selectors) if isinstance(selectors, (list, tuple)) else repeat((selectors,))


def _explain_in_parts(
    model: Model, questions: Iterator[_Question], method: str, parameters: dict[str, Any]
) -> Generator[Attribution, None, None]:
    """Yield the attribution of each photo in a stream; some at a time share passes."""
    part: list[_Question] = []
    while True:
        try:
            question = next(questions, None)
        except (ImageError, TargetError):
            yield from _explain_part(model, part, method, parameters)
            raise
        part += [] if question is None else [question]
        pixels = sum(one.photo.width * one.photo.height for one in part)
        if question is None or len(part) == MAX_PHOTOS_AT_ONCE or pixels >= MAX_PIXELS_AT_ONCE:
            yield from _explain_part(model, part, method, parameters)
            part = []
        if question is None:
            return


def _explain_part(
    model: Model, part: Sequence[_Question], method: str, parameters: dict[str, Any]
) -> list[Attribution]:
    """Return the attributions of some photos of a stream."""
    if not part:
        return []
    photos, targets, contrasts = zip(*part, strict=True)
    return explain(model, list(photos), method, list(targets), list(contrasts), **parameters)
