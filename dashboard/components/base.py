"""Custom gradio components, each drawn by a .js and .css file in this folder, and the encoding of their data."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dashboard.i18n.translate import script_texts, translate_error
from vizlib.core.geometry import Geometry
from vizlib.render.color_scale import DIVERGING_COLORMAP, SEQUENTIAL_COLORMAP, load_colormap

COMPONENTS_DIR = Path(__file__).parent
SCRIPTS_DIR = COMPONENTS_DIR / "scripts"  # shared by several components
COMMON_SCRIPTS = ("translate", "coalesce_events", "emit_choice", "canvas", "url_state", "copy")  # in every component
EXTRA_SCRIPTS: Mapping[str, tuple[str, ...]] = {  # in some components
    "bars": ("keyed_list",),
    "receptive_field": ("grid",),
    "patches": ("grid", "small_multiples"),
    "thumbnails": ("keyed_list",),
}
COMMENT_LINES = re.compile(r"^[ \t]*(?://[^\n]*|/\*(?:(?!\*/).)*\*/[ \t]*)\n", re.MULTILINE | re.DOTALL)
MAX_SENTENCE_CHARS = 800  # of an error message, which may quote the text of a request
PHOTO_SIDE_PX = 840  # longest side of a photo under a map, the largest that the page shows
PALETTES = {  # by signed: perceptually uniform ones; diverging ones that the colour-blind can distinguish
    False: (SEQUENTIAL_COLORMAP, "viridis", "cividis"),
    True: (DIVERGING_COLORMAP, "PuOr_r", "BrBG_r"),
}


def custom_component(name: str, value: Any = None, texts: Iterable[str] = (), **props: Any) -> gr.HTML:
    """Return a component whose value is data that `<name>.js` draws in the browser.

    The value never becomes HTML: the scripts set `textContent` and draw on canvases. This is a function and not a
    subclass of `gr.HTML`, because gradio writes a .pyi file for every subclass beside the source, which goes stale.

    Args:
        name: The stem of the component's .js and .css file.
        value: The first value, as JSON data.
        texts: English texts in the value that the script translates.
        **props: Further properties for the script, and arguments of `gr.HTML` such as `elem_id`.
    """
    return gr.HTML(
        value,
        html_template=f'<div class="viz-{name}"></div>',
        js_on_load=_build_script(name, tuple(texts)),
        apply_default_css=False,
        **props,
    )


def on_page_load(handler: Callable[[], Any], outputs: Sequence[Any]) -> None:
    """Fill components that do not depend on the photo and model when the page loads, in the language of the request."""
    gr.on(None, handler, None, list(outputs), api_visibility="private", show_progress="hidden")


def emit_choice_js(arguments: str, choice: str, queue: str = "event-queue") -> str:
    """Return a JavaScript event handler for one of gradio's own components that adds a choice to an event queue.

    Args:
        arguments: The handler's parameters, comma-separated: the values of the event's inputs.
        choice: The choice as a JavaScript expression of the parameters.
        queue: The element id of the event queue.
    """
    return f"({arguments}) => {{ {read_script('emit_choice.js')} emitChoice({choice}, {json.dumps(queue)}); }}"


def to_gradio_error(error: Exception) -> gr.Error:
    """Return an error message as gradio shows it: one sentence in the language of the request, without HTML."""
    half = MAX_SENTENCE_CHARS // 2
    sentence = translate_error(error)
    sentence = sentence if len(sentence) <= 2 * half else f"{sentence[:half]} ... {sentence[-half:]}"
    text = escape(sentence, quote=False).rstrip(".")
    text += "" if text.endswith("?") else "."
    return gr.Error("The" + text[3:] if text.startswith("the ") else text, print_exception=False)


@cache
def _build_script(name: str, texts: tuple[str, ...] = ()) -> str:
    """Return the script of a component: the translations of its texts, the shared scripts and its own."""
    script = "".join(read_script(f"{stem}.js") for stem in (*COMMON_SCRIPTS, *EXTRA_SCRIPTS.get(name, ()), name))
    translations = script_texts(script + json.dumps(texts))
    return f"const TRANSLATIONS = {json.dumps(translations, ensure_ascii=False)};\n" + script


@cache
def read_script(name: str) -> str:
    """Return a script without the lines that are only comments."""
    path = SCRIPTS_DIR / name
    script = (path if path.exists() else COMPONENTS_DIR / name).read_text(encoding="utf-8")
    return COMMENT_LINES.sub("", script)


def read_styles() -> str:
    """Return the style sheets of all components."""
    scripts = sorted(COMPONENTS_DIR.glob("*.js"))
    return "\n".join(script.with_suffix(".css").read_text(encoding="utf-8") for script in scripts)


def pack_floats(values: np.ndarray) -> dict[str, Any]:
    """Encode values of any shape as base64 of 32-bit floats."""
    return {"shape": list(values.shape), "floats": _encode_base64(np.ascontiguousarray(values, dtype="<f4"))}


def pack_bytes(values: np.ndarray) -> dict[str, Any]:
    """Encode maps "... h w" with one byte per value: 256 steps from the minimum to the maximum of each map.

    Returns:
        The shape, the bytes, and for each map its minimum and maximum ("ends") as 32-bit floats, both in base64.
    """
    low, high = values.min((-2, -1), keepdims=True), values.max((-2, -1), keepdims=True)
    span = np.where(high > low, high - low, 1)
    steps = ((values - low) / span * 255).round().astype(np.uint8)
    ends = np.concatenate([low, low + span], -1).reshape(-1, 2)
    return {"shape": list(values.shape), "bytes": _encode_base64(steps), "ends": _encode_base64(ends.astype("<f4"))}


def encode_photo_and_box(photo: Image.Image, geometry: Geometry, side: int = PHOTO_SIDE_PX) -> dict[str, Any]:
    """Encode a photo as `encode_photo` does, with the model's input on it as a box."""
    return {**encode_photo(photo, side), "box": compute_input_box(geometry)}


def encode_photo(photo: Image.Image, side: int = PHOTO_SIDE_PX) -> dict[str, Any]:
    """Encode a photo as a data URL, with the size in pixels to draw it at, whose longest side is `side`."""
    cache_key = f"data url at {side} pixels"
    if cache_key not in photo.info:  # cached with the photo, which several tabs draw
        small = photo.copy()
        small.thumbnail((side, side))
        photo.info[cache_key] = make_data_url(small, "JPEG")
    factor = side / max(photo.size)  # a small photo is enlarged, or the map over it would be coarse
    width, height = (max(1, round(length * factor)) for length in photo.size)
    return {"photo": photo.info[cache_key], "width": width, "height": height}


def compute_input_box(geometry: Geometry) -> list[float]:
    """Return the box of a model's input on the photo: top, left, bottom, right as shares of the photo's sides.

    With padding, the box is larger than the photo.
    """
    (top, left), (bottom, right) = geometry.to_photo(0, 0), geometry.to_photo(*geometry.input_size)
    height, width = geometry.photo_size
    return [top / height, left / width, bottom / height, right / width]


def encode_palette(signed: bool) -> str:
    """Encode the default colour map for signed or unsigned maps: 256 RGB colours as base64."""
    return _encode_base64(load_colormap(PALETTES[signed][0]))


def encode_palettes(signed: bool) -> list[dict[str, str]]:
    """Return the name and the encoded colours of every colour map that can be selected, the default first."""
    return [{"name": name, "colours": _encode_base64(load_colormap(name))} for name in PALETTES[signed]]


def make_data_url(picture: Image.Image, kind: str = "PNG") -> str:
    """Encode an image as a `data:` URL."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 4}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def _encode_base64(values: np.ndarray) -> str:
    """Return the bytes of an array as text, for the value of a custom component."""
    return base64.b64encode(values.tobytes()).decode()
