"""A part of the page with its own .js and .css file beside it, and the form in which numbers travel to it."""

from __future__ import annotations

import base64
import io
import json
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
SCRIPTS_DIR = COMPONENTS_DIR / "scripts"  # what several parts have in common
COMMON_SCRIPTS = ("translate", "coalesce_events", "emit_choice", "canvas", "url_state", "copy")  # scripts that every part has
EXTRA_SCRIPTS: Mapping[str, tuple[str, ...]] = {  # scripts that a few parts have in common
    "bars": ("keyed_list",),
    "receptive_field": ("grid",),
    "patches": ("grid", "small_multiples"),
    "thumbnails": ("keyed_list",),
}
MAX_SENTENCE_CHARS = 800  # letters of a sentence; what is quoted in it may have been sent by a program
PHOTO_SIDE_PX = 840  # longest side of a photo drawn upon, in pixels; the page shows no more
PALETTES = {  # perceptually uniform ones; the diverging ones can be told apart by the colour-blind too
    False: (SEQUENTIAL_COLORMAP, "viridis", "cividis"),
    True: (DIVERGING_COLORMAP, "PuOr_r", "BrBG_r"),
}


def custom_component(name: str, value: Any = None, texts: Iterable[str] = (), **more: Any) -> gr.HTML:
    """A part of the page whose value is data and whose drawing is done by `<name>.js`.

    The value never becomes HTML: the scripts write text with `textContent` and draw on canvases. `says` is what of the
    value they are to translate. A function, not a subclass of `gr.HTML`: for every subclass gradio writes a .pyi file
    beside the source, which then goes stale.
    """
    return gr.HTML(
        value,
        html_template=f'<div class="viz-{name}"></div>',
        js_on_load=_build_script(name, tuple(texts)),
        apply_default_css=False,
        **more,
    )


def on_page_load(handler: Callable[[], Any], outputs: Sequence[Any]) -> None:
    """Fill parts that are the same for every photo and model once a visitor opens the page, in their language."""
    gr.on(None, handler, None, list(outputs), api_visibility="private", show_progress="hidden")


def url_update_js(key: str, value: str) -> str:
    """A browser's answer to an event that writes one key of the page's address, once the page is what that asked for.

    gradio tells of the first tab's opening too, now and then before it has read the address.
    """
    there = "document.querySelector('.viz-event_queue[data-ready]')"
    return f"() => {{ {_read_script('url_state.js')} if ({there}) place({json.dumps(key)}, {json.dumps(value)}); }}"


def emit_choice_js(arguments: str, choice: str, queue: str = "desk") -> str:
    """A browser's answer to an event of a part that is gradio's own: a choice, of what the event is given."""
    return f"({arguments}) => {{ {_read_script('emit_choice.js')} choose({choice}, {json.dumps(queue)}); }}"


def to_gradio_error(error: Exception) -> gr.Error:
    """A person's mistake as gradio shows it: one sentence, in which nothing is HTML."""
    said = translate_error(error)
    said = said if len(said) <= MAX_SENTENCE_CHARS else said[: MAX_SENTENCE_CHARS // 2] + " ... " + said[-MAX_SENTENCE_CHARS // 2 :]
    text = escape(said, quote=False).rstrip(".")
    text += "" if text.endswith("?") else "."
    return gr.Error("The" + text[3:] if text.startswith("the ") else text, print_exception=False)


@cache
def _build_script(name: str, says: tuple[str, ...] = ()) -> str:
    """All that a part runs, and ahead of it what it says in other languages."""
    script = "".join(_read_script(f"{one}.js") for one in (*COMMON_SCRIPTS, *EXTRA_SCRIPTS.get(name, ()), name))
    return f"const SAID = {json.dumps(script_texts(script + json.dumps(says)), ensure_ascii=False)};\n" + script


@cache
def _read_script(name: str) -> str:
    path = SCRIPTS_DIR / name
    return (path if path.exists() else COMPONENTS_DIR / name).read_text(encoding="utf-8")


def read_styles() -> str:
    """The style sheets of all parts."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(COMPONENTS_DIR.glob("*.css")))


def pack_floats(values: np.ndarray) -> dict[str, Any]:
    """Raw values "h w" for the browser, as 32-bit floats."""
    return {"shape": list(values.shape), "floats": _encode_base64(np.ascontiguousarray(values, dtype="<f4"))}


def pack_bytes(values: np.ndarray) -> dict[str, Any]:
    """Values "... h w" for the browser in a byte each: 256 steps from the lowest to the highest of each map."""
    low, high = values.min((-2, -1), keepdims=True), values.max((-2, -1), keepdims=True)
    span = np.where(high > low, high - low, 1)
    steps = ((values - low) / span * 255).round().astype(np.uint8)
    ends = np.concatenate([low, low + span], -1).reshape(-1, 2)
    return {"shape": list(values.shape), "bytes": _encode_base64(steps), "ends": _encode_base64(ends.astype("<f4"))}


def encode_photo_and_box(photo: Image.Image, geometry: Geometry, side: int = PHOTO_SIDE_PX) -> dict[str, Any]:
    """A photo to draw upon, and where on it the model's input lies."""
    return {**encode_photo(photo, side), "box": compute_input_box(geometry)}


def encode_photo(photo: Image.Image, side: int = PHOTO_SIDE_PX) -> dict[str, Any]:
    """A photo to draw upon, its longest side `side` pixels."""
    name = f"drawn on at {side}"
    if name not in photo.info:  # kept with the photo, as several tabs draw on the same
        small = photo.copy()
        small.thumbnail((side, side))
        photo.info[name] = make_data_url(small, "JPEG")
    factor = side / max(photo.size)  # a small photo is drawn larger than it is, or its heat would be coarse
    width, height = (max(1, round(length * factor)) for length in photo.size)
    return {"photo": photo.info[name], "width": width, "height": height}


def compute_input_box(geometry: Geometry) -> list[float]:
    """Where a model's input lies on the photo, padding and all: top, left, bottom, right as shares of its sides."""
    (top, left), (bottom, right) = geometry.to_photo(0, 0), geometry.to_photo(*geometry.input_size)
    height, width = geometry.photo_size
    return [top / height, left / width, bottom / height, right / width]


def encode_palette(signed: bool) -> str:
    """The colour map's 256 colours, as bytes."""
    return _encode_base64(load_colormap(PALETTES[signed][0]))


def encode_palettes(signed: bool) -> list[dict[str, str]]:
    """The colour maps to choose from, the library's own first: name, and its 256 colours as bytes."""
    return [{"name": name, "colours": _encode_base64(load_colormap(name))} for name in PALETTES[signed]]


def make_data_url(picture: Image.Image, kind: str = "PNG") -> str:
    """A picture as a `data:` address."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 4}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def _encode_base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
