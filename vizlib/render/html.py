"""HTML templates (jinja2, with autoescape) and images that are embedded in a page."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_LOSSLESS_PIXELS = 1_500_000  # a larger image is embedded as JPEG, as a PNG would make the page too large to send
TEMPLATES = Path(__file__).with_name("templates")  # shared by all pages; a page's own folder is searched first


class InlineImage(NamedTuple):
    """An image as a data URL, and its size in pixels."""

    url: str
    width: int
    height: int


def inline_image(image: Image.Image, *, lossless: bool | None = None) -> InlineImage:
    """Return an image for an HTML page as a data URL, so that the page needs no file beside it.

    Args:
        image: Any image that Pillow can save.
        lossless: Encode as PNG (True) or as JPEG (False); by default PNG up to `MAX_LOSSLESS_PIXELS`.
    """
    lossless = image.width * image.height <= MAX_LOSSLESS_PIXELS if lossless is None else lossless
    file = io.BytesIO()
    if lossless:
        image.save(file, "PNG", compress_level=9)
    else:
        image.save(file, "JPEG", quality=92, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode()
    return InlineImage(f"data:image/{'png' if lossless else 'jpeg'};base64,{data}", image.width, image.height)


def render_template(path: Path, **values: object) -> str:
    """Return the text of an HTML template file filled with values, which are escaped.

    Args:
        path: The template; it may import templates of its folder and of `TEMPLATES`.
        **values: What the names in the template stand for.

    Raises:
        jinja2.UndefinedError: For a name in the template that has no value.
    """
    return _load_environment(path.parent).get_template(path.name).render(**values)


@cache
def _load_environment(folder: Path) -> Environment:
    """Return the jinja2 environment of a folder of HTML templates, with autoescape."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here, so that `import vizlib` stays fast

    loader = FileSystemLoader([folder, TEMPLATES])
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, cache_size=50
    )
