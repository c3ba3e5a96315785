"""A picture that the browser fetches as a file."""

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
    """A `gr.Image` whose file is whole at any moment.

    Whoever shows the same picture shares its file, which gradio writes anew each time, over what another is reading.
    """

    def get_block_name(self) -> str:
        """By which the page knows how to draw it: as gradio's own."""
        return "image"

    def get_block_class(self) -> str:
        """By which another program that loads the page knows it."""
        return "image"

    def postprocess(self, value: Any) -> Any:
        """Where the picture lies."""
        if isinstance(value, Image.Image):
            value = _write_cached(encode_pil_to_bytes(value, self.format), Path(self.GRADIO_CACHE), self.format)
        return super().postprocess(value)


def _write_cached(data: bytes, folder: Path, ending: str) -> str:
    """A file with these bytes, where gradio itself would put it; one that is there already is as if new."""
    path = (folder / hash_bytes(data) / f"image.{ending}").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size == len(data):
        with suppress(OSError):
            os.utime(path)  # lest it be deleted for its age
    else:
        with open_atomic(path) as file:
            file.write(data)
    return str(path)
