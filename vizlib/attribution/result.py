"""What the library hands out: a run, a prediction, an attribution."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.core.atomic_files import open_atomic
from vizlib.core.errors import VizlibError
from vizlib.core.geometry import Geometry
from vizlib.core.text import format_number
from vizlib.render import notebook
from vizlib.render.color_scale import compute_limits
from vizlib.render.overlay import draw_figure, overlay_heat

MAX_FIGURE_SIDE_PX = 1600  # pixels along a side of a photo in a figure
SAVE_SUFFIXES = (".png", ".svg", ".npz", ".json")


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each place in the photo spoke for a class."""

    heat: Float[Tensor, "h w"]  # raw, CPU, detached, the method's own resolution, spanning the whole model input
    target: int
    label: str
    method: str
    parameters: Mapping[str, object]
    signed: bool  # whether negative values mean "against"
    geometry: Geometry
    photo: Image.Image
    model: str
    probability: float  # of the target class
    notes: tuple[str, ...] = ()  # what is wrong or worth knowing, in plain words
    patch_values: bool = False  # whether each value belongs to one patch, and is drawn with its edges
    by_layer: Mapping[str, Attribution] = field(default_factory=dict)  # from `explain_all`: the same at other layers

    @property
    def file_stem(self) -> str:
        """What a file with it is called, before its ending."""
        against = f"_vs_{self.parameters['against']}" if "against" in self.parameters else ""
        return re.sub(r"[^\w.+-]", "-", f"{self.model}_{self.method}_{self.target}{against}", flags=re.ASCII)

    def project_to_photo(self) -> Float[np.ndarray, "H W"]:
        """The raw heat at every pixel of the upright photo; NaN where the model did not look."""
        return self.geometry.project_to_photo(self.heat, smooth=not self.patch_values)

    def overlay(self, *, opacity: float = 0.75, colormap: str | None = None, limits: tuple[float, float] | None = None):
        """The photo with the heat upon it, at the photo's own size; what the model never saw is dimmed.

        `limits` are the values at the two ends of the colour map; pass the same to compare two pictures.
        """
        return overlay_heat(
            self.photo, self.project_to_photo(), signed=self.signed, opacity=opacity, colormap=colormap, limits=limits
        )

    def resize_with_heat(self, side: int) -> tuple[Image.Image, Float[np.ndarray, "H W"]]:
        """The photo, made smaller where a side is longer than `side` pixels, and the raw heat at each of its pixels."""
        photo = self.photo.copy()
        photo.thumbnail((side, side))
        return photo, self.geometry.project_to_photo(self.heat, (photo.height, photo.width), smooth=not self.patch_values)

    def figure(self, title: str | None = None, **colours):
        """A matplotlib `Figure` of the overlay beside a colour bar of the raw values; `savefig` writes it as anything.

        `colours` are `overlay`'s: `opacity`, `colormap`, `limits`.
        """
        photo, heat = self.resize_with_heat(MAX_FIGURE_SIDE_PX)
        return draw_figure(photo, heat, title=title or self._title, signed=self.signed, **colours)

    def __repr__(self) -> str:
        rows, columns = self.heat.shape
        low, high = format_number(self.heat.min()), format_number(self.heat.max())
        return f"<Attribution {self._title}: {rows} × {columns} values from {low} to {high}>"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the overlay, its colour bar, and the notes."""
        photo, heat = self.resize_with_heat(notebook.MAX_SIDE_PIXELS)
        limits = compute_limits(heat, signed=self.signed)
        overlay = overlay_heat(photo, heat, signed=self.signed, limits=limits)
        return notebook.render_attribution(overlay, self._title, self.notes, limits=limits, signed=self.signed)

    @property
    def _title(self) -> str:
        return f"{self.method} for {self._asked}"

    @property
    def _asked(self) -> str:
        rival = f" against class {self.parameters['against']}" if "against" in self.parameters else ""
        return f"{self.label}{rival} ({100 * self.probability:.3g} %), {self.model}"

    def to_dict(self) -> dict:
        """Everything but the heat itself, ready for JSON."""
        y0, x0, y1, x1 = self.geometry.visible_box
        return {
            "model": self.model,
            "method": self.method,
            "knobs": dict(self.parameters),
            "target": self.target,
            "label": self.label,
            "probability": self.probability,
            "signed": self.signed,
            "heat": {"shape": list(self.heat.shape), "min": self.heat.min().item(), "max": self.heat.max().item()},
            "photo": {"width": self.photo.width, "height": self.photo.height},
            "seen": {"top": y0, "left": x0, "bottom": y1, "right": x1, "fraction": self.geometry.visible_fraction},
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> Path:
        """Write the overlay (`.png`), it beside a colour bar (`.svg`), or the raw values (`.npz`, `.json`).

        An `.npz` holds `heat`, `on_photo` and, as JSON, `about`. `vizlib.report` writes all of it as one page.

        Raises: VizlibError for another ending, or where the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in SAVE_SUFFIXES:
            raise VizlibError(f"cannot save as {path.suffix or path.name!r}; use one of {', '.join(SAVE_SUFFIXES)}")
        with open_atomic(path) as file:
            if path.suffix == ".png":
                self.overlay().save(file, "PNG")
            elif path.suffix == ".svg":
                self.figure().savefig(file, format="svg", metadata={"Date": None})
            elif path.suffix == ".npz":
                about = json.dumps(self.to_dict())
                np.savez_compressed(file, heat=self.heat.numpy(), on_photo=self.project_to_photo(), about=about)
            else:
                text = json.dumps({**self.to_dict(), "values": self.heat.tolist()}, indent=1)
                file.write(f"{text}\n".encode())
        return path


class AttributionDict(dict[str, Attribution]):
    """What several methods say about one photo and one class, by method: a dictionary that a notebook shows whole."""

    def _repr_html_(self) -> str | None:
        """All overlays, small, each on a colour scale of its own, and the notes that hold for all of them."""
        if not self:
            return None
        overlays = {}
        for method, answer in self.items():
            photo, heat = answer.resize_with_heat(notebook.GRID_SIDE_PIXELS)
            overlays[method] = overlay_heat(photo, heat, signed=answer.signed)
        first, *others = self.values()
        shared = [note for note in first.notes if all(note in other.notes for other in others)]
        return notebook.render_attribution_grid(overlays, f"{first._asked}; each map on its own colour scale", shared)


class ExplanationStep(NamedTuple):
    """A map on its way, after `done` of `total` passes; the last step's is the answer."""

    attribution: Attribution
    done: int
    total: int

    @property
    def fraction(self) -> float:
        """How much of the work is done, 0 to 1."""
        return self.done / self.total
