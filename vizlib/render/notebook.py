"""How results show themselves where they are the last line of a notebook's cell, in the notebook's own colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from vizlib.core.text import format_number
from vizlib.render.color_scale import Limits, draw_color_bar
from vizlib.render.html import inline_image

MAX_SIDE_PIXELS = 480  # pixels along a side of the photo in it; a notebook keeps every card it has shown
GRID_SIDE_PIXELS = 180  # of one among many
KERNEL_SIDE_PIXELS = 28  # of one kernel
STOPS = 17  # colours the bar is drawn through, the middle one among them

# Notebooks drop style sheets, and some are dark: each part carries its style, and colours are those around it.
FIGURE = "margin:0;font:14px/1.5 system-ui,sans-serif"
CARD = f"{FIGURE};max-width:{MAX_SIDE_PIXELS}px"
HEAT = "max-width:{}px"
PICTURE = "overflow:hidden;border-radius:8px;line-height:0"
BAR = "height:8px;margin:8px 0 2px;border-radius:4px;background:linear-gradient(to right,{})"
ENDS = "display:flex;justify-content:space-between;font-size:12px;font-variant-numeric:tabular-nums;opacity:.8"
SHEET = "display:flex;flex-wrap:wrap;gap:12px;margin:0 0 8px"
EACH = "font-size:12px;line-height:1.4;width:{}px"
NOTES = "margin:4px 0 0;padding-left:1.2em;font-size:13px"


def render_attribution(overlay: Image.Image, title: str, notes: Sequence[str], *, limits: Limits, signed: bool) -> str:
    """The photo with the heat upon it, the colour bar with its raw values, the title and what is worth knowing."""
    ramp = draw_color_bar(signed=signed, width=STOPS, height=1)
    bar = ",".join("#" + colour.tobytes().hex() for colour in np.asarray(ramp)[0])
    middle = "<span>0</span>" if signed else ""
    return f"""<figure style="{CARD}">
<div style="{HEAT.format(overlay.width)}">
<div style="{PICTURE}">{inline_image(overlay, title, lossless=False)}</div>
<div style="{BAR.format(bar)}"></div>
<div style="{ENDS}"><span>{format_number(limits[0])}</span>{middle}<span>{format_number(limits[1])}</span></div>
</div>
{_caption(title, notes)}</figure>"""


def render_attribution_grid(overlays: Mapping[str, Image.Image], title: str, notes: Sequence[str]) -> str:
    """Many maps of one photo by name, small and side by side, with what is worth knowing about all of them."""
    shown = "\n".join(
        f'<div style="{EACH.format(overlay.width)}">'
        f'<div style="{PICTURE}">{inline_image(overlay, name, lossless=False)}</div>{escape(name)}</div>'
        for name, overlay in overlays.items()
    )
    return f'<figure style="{FIGURE}">\n<div style="{SHEET}">\n{shown}\n</div>\n{_caption(title, notes)}</figure>'


def render_image(picture: Image.Image, title: str) -> str:
    """One picture whose pixels count, and what it is."""
    return f'<figure style="{FIGURE}">{inline_image(picture, title, lossless=True)}\n{_caption(title, ())}</figure>'


def _caption(title: str, notes: Sequence[str]) -> str:
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    below = f'<ul style="{NOTES}">{said}</ul>' if said else ""
    return f"<figcaption><strong>{escape(title)}</strong>{below}</figcaption>"
