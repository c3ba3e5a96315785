"""The box a person drops a photo into."""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from dashboard.components.atomic_image import Picture
from dashboard.components.base import to_gradio_error
from dashboard.services.byte_cache import ByteCache
from vizlib import ImageError, open_image

MAX_UPLOAD_MB = 20  # of one photo's file
Image.MAX_IMAGE_PIXELS = 40_000_000  # Pillow's own guard, beside the library's, for whatever gradio may open itself


@cache
def get_photo_cache() -> ByteCache:
    """Photos decoded lately: every event sends the photo's address again, and it need not be decoded again.

    One for the whole process, and not for each `PhotoInput`: gradio makes a component anew for each visitor.
    """
    return ByteCache(192_000_000)


class PhotoInput(Picture):
    """A `Picture` that opens what it is given with `vizlib.open_image`, and says in one plain sentence what is wrong.

    Every event under way is sent what lies in the box. So what is no photo is not refused here but handed on as its
    error, for one of them to raise.

    It takes gradio's own arguments: gradio reads a component's settings off its constructor's signature.
    """

    def preprocess(self, payload: Any) -> Image.Image | gr.Error | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The upright RGB photo, the same object for the same file; or what is wrong with it."""
        if payload is None:
            return None
        try:
            data = _read_bytes(payload)
            return get_photo_cache().get(hashlib.blake2b(data, digest_size=16).digest(), lambda: open_image(data))
        except ImageError as error:
            return to_gradio_error(error)


def _read_bytes(payload: Any) -> bytes:
    """The file behind an upload (gradio has checked that it is one), or the picture inside a `data:` address."""
    try:
        if payload.url and payload.url.startswith("data:"):
            text = payload.url.partition(",")[2]
            _check_size(len(text) * 3 // 4)
            return base64.b64decode(text, validate=True)
        _check_size(Path(payload.path).stat().st_size)  # gradio weighs what is uploaded, not what it fetches
        return Path(payload.path).read_bytes()
    except ImageError:
        raise
    except (OSError, TypeError, ValueError, binascii.Error):
        raise ImageError("the photo did not arrive whole; please choose it again") from None


def _check_size(size: int) -> None:
    if size > MAX_UPLOAD_MB * 1_000_000:
        raise ImageError(f"the photo has {size / 1e6:.0f} MB, expected at most {MAX_UPLOAD_MB} MB")
