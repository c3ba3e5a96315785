"""An image component whose file is written atomically."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import encode_pil_to_bytes, hash_bytes
from PIL import Image

from vizlib.core.atomic_files import open_atomic


class AtomicImage(gr.Image):
    """A `gr.Image` whose file is complete at any moment.

    Equal images share one file. gradio overwrites it each time, also while another request is reading it.
    """

    def get_block_name(self) -> str:
        """Return the name that selects gradio's own image component in the browser."""
        return "image"

    def get_block_class(self) -> str:
        """Return the name by which API clients know the image component."""
        return "image"

    def postprocess(self, value: Any) -> Any:
        """Write a PIL image atomically to gradio's cache and return the reference to its file."""
        if isinstance(value, Image.Image):
            value = _write_cached(encode_pil_to_bytes(value, self.format), Path(self.GRADIO_CACHE), self.format)
        return super().postprocess(value)


def _write_cached(data: bytes, folder: Path, extension: str) -> str:
    """Write an image file atomically where gradio would, and return its path; an existing one only gets a new date."""
    path = (folder / hash_bytes(data) / f"image.{extension}").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size == len(data):
        with suppress(OSError):
            os.utime(path)  # gradio deletes files by age
    else:
        with open_atomic(path) as file:
            file.write(data)
    return str(path)
