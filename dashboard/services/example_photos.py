"""The example photos, and their names in the page's address."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gradio.media import get_image
from matplotlib.cbook import get_sample_data
from PIL import Image

from vizlib import open_image

EXAMPLES = {  # photos that come with gradio and matplotlib
    "The Eiffel tower": get_image("tower.jpg"),  # first, as the classes of the bundled models include church
    "A running cheetah": get_image("cheetah.jpg"),
    "Grace Hopper": str(get_sample_data("grace_hopper.jpg", asfileobj=False)),
}


@cache
def open_example_photos() -> dict[str, Image.Image]:
    """Return the example photos, opened, by their names in the page's address."""
    return {f"ex:{Path(path).stem}": open_image(path) for path in EXAMPLES.values()}
