"""The key of a photo in caches and in the selection."""

from __future__ import annotations

import hashlib

from PIL import Image


def compute_photo_key(photo: Image.Image) -> str:
    """Return the key of a photo, a hash of its pixels and of the notes made when it was opened.

    It is stored in `photo.info`.
    """
    if "key" not in photo.info:
        description = repr((photo.mode, photo.size, photo.info.get("notes", ()))).encode()
        photo.info["key"] = hashlib.blake2b(description + photo.tobytes(), digest_size=16).hexdigest()
    return photo.info["key"]
