"""Custom gradio components, each drawn by a .js and .css file in this folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from dashboard.i18n.translate import get_script_translations

COMPONENTS_DIR = Path(__file__).parent
SCRIPTS_DIR = COMPONENTS_DIR / "scripts"  # shared by several components
COMMON_SCRIPTS = ("translate", "coalesce_events", "emit_choice", "canvas", "url_state", "copy")  # in every component
EXTRA_SCRIPTS: Mapping[str, tuple[str, ...]] = {  # in some components
    "bars": ("keyed_list",),
    "curves": ("svg",),
    "perturbation": ("svg",),
    "receptive_field": ("grid",),
    "lesson": ("vector_product",),
    "patches": ("grid", "small_multiples"),
    "progress": ("start_when_idle",),
    "thumbnails": ("keyed_list", "start_when_idle"),
    "trust": ("start_when_idle",),
}
COMMENT_LINES = re.compile(r"^[ \t]*(?://[^\n]*|/\*(?:(?!\*/).)*\*/[ \t]*)\n", re.MULTILINE | re.DOTALL)


def custom_component(name: str, value: Any = None, texts: Iterable[str] = (), **props: Any) -> gr.HTML:
    """Return a custom component, whose value is data that `<name>.js` draws in the browser.

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
    """Fill custom components that depend on no photo and model when the page loads, in the language of the request."""
    gr.on(None, handler, None, list(outputs), api_visibility="private", show_progress="hidden")


@cache
def _build_script(name: str, texts: tuple[str, ...] = ()) -> str:
    """Return the JavaScript of a custom component: the translations of its texts, the shared scripts and its own."""
    script = "".join(read_script(f"{stem}.js") for stem in (*COMMON_SCRIPTS, *EXTRA_SCRIPTS.get(name, ()), name))
    translations = get_script_translations(script + json.dumps(texts))
    return f"const TRANSLATIONS = {json.dumps(translations, ensure_ascii=False)};\n" + script


@cache
def read_script(name: str) -> str:
    """Return a JavaScript file of the components without the lines that are only comments."""
    path = SCRIPTS_DIR / name
    script = (path if path.exists() else COMPONENTS_DIR / name).read_text(encoding="utf-8")
    return COMMENT_LINES.sub("", script)


def read_component_styles() -> str:
    """Return the style sheets of all custom components."""
    scripts = sorted(COMPONENTS_DIR.glob("*.js"))
    return "\n".join(script.with_suffix(".css").read_text(encoding="utf-8") for script in scripts)
