"""The example photos, and their names in the page's address."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gradio.media import get_image
from matplotlib.cbook import get_sample_data
from PIL import Image

from vizlib import ModelEntry, open_image

EXAMPLES = {  # photos that come with gradio and matplotlib, and a picture of digits for the model that reads prompts
    "A lion": get_image("lion.jpg"),
    "A running cheetah": get_image("cheetah.jpg"),
    "Grace Hopper": str(get_sample_data("grace_hopper.jpg", asfileobj=False)),
    "The Eiffel tower": get_image("tower.jpg"),
    "Coloured digits": str(Path(__file__).with_name("example_pictures") / "digits.png"),
}
FIRST_EXAMPLES = {"church": "ex:tower"}  # for a model with this class, which does not know lions; else the first one


@cache
def open_example_photos() -> dict[str, Image.Image]:
    """Return the example photos, opened, by their names in the page's address."""
    return {f"ex:{Path(path).stem}": open_image(path) for path in EXAMPLES.values()}


def choose_first_example(entry: ModelEntry) -> str:
    """Return the name of the photo with which the page opens.

    Args:
        entry: Entry in the index of models of the one with which it opens.

    >>> choose_first_example(ModelEntry("one", "given", 0.0, "tench, church"))
    'ex:tower'
    >>> choose_first_example(ModelEntry("one", "given", 0.0, "1,000 classes"))
    'ex:lion'
    """
    if entry.bundled and entry.reads_prompts:
        return "ex:digits"
    known = entry.classes.split(", ")
    return next((photo for name, photo in FIRST_EXAMPLES.items() if name in known), next(iter(open_example_photos())))
