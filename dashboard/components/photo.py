"""The upload box for a photo."""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.atomic_image import AtomicImage
from dashboard.components.error_messages import to_gradio_error
from dashboard.services.byte_cache import ByteCache
from vizlib import ImageError, open_image

MAX_UPLOAD_MB = 20  # size of a photo's file
PHOTO_CACHE_BYTES = 192_000_000
Image.MAX_IMAGE_PIXELS = 40_000_000  # Pillow's own limit, beside the library's, for images that gradio opens itself


@cache
def get_photo_cache() -> ByteCache:
    """Return the cache of decoded photos by the hash of their file: every event sends the reference to the file again.

    The cache belongs to the process and not to a `PhotoInput`, because gradio creates a new component for each session.
    """
    return ByteCache(PHOTO_CACHE_BYTES)


class PhotoInput(AtomicImage):
    """An `AtomicImage` that opens an upload with `vizlib.open_image`.

    Every pending event receives the upload. A file that is no photo therefore does not raise here: the error is
    returned in place of the photo, for one of the handlers to raise.

    The constructor is gradio's own, because gradio reads a component's settings from its signature.
    """

    def preprocess(self, payload: Any) -> Image.Image | gr.Error | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the upright RGB photo, the same object for the same file; or an error about the file."""
        if payload is None:
            return None
        try:
            data = _read_bytes(payload)
            return get_photo_cache().get(hashlib.blake2b(data, digest_size=16).digest(), lambda: open_image(data))
        except ImageError as error:
            return to_gradio_error(error)


def _read_bytes(payload: Any) -> bytes:
    """Return the content of an uploaded photo's file (whose path gradio has validated), or of its `data:` URL."""
    try:
        if payload.url and payload.url.startswith("data:"):
            text = payload.url.partition(",")[2]
            _check_size(len(text) * 3 // 4)
            return base64.b64decode(text, validate=True)
        _check_size(Path(payload.path).stat().st_size)  # gradio limits uploads, but not files that it downloads
        return Path(payload.path).read_bytes()
    except ImageError:
        raise
    except (OSError, TypeError, ValueError, binascii.Error):
        raise ImageError("the photo did not arrive whole; please choose it again") from None


def _check_size(size: int) -> None:
    """Raise an error for an uploaded photo of too many bytes."""
    if size > MAX_UPLOAD_MB * 1_000_000:
        raise ImageError(f"the photo has {size / 1e6:.0f} MB, expected at most {MAX_UPLOAD_MB} MB")
