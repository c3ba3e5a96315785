"""What `explain` returns: an attribution, a dictionary of them, and the steps that converge to one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vizlib.attribution.measurement import Trust
from vizlib.core.atomic_files import open_atomic
from vizlib.core.errors import VizlibError
from vizlib.core.geometry import Geometry
from vizlib.core.text import format_number, format_percent
from vizlib.render import notebook
from vizlib.render.color_scale import compute_limits
from vizlib.render.overlay import draw_figure, overlay_heat

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FunctionName(str):
    """The name of a function of the output that an attribution explains; elsewhere a string names a class."""


# What is recorded of an explained output: a class by index, weights by index, the name of a complement or function.
ExplainedRecord = int | str | Mapping[int, float] | None
MAX_RECORD_LENGTH = 60  # characters in a file name
MAX_FIGURE_SIDE_PX = 1600
SAVE_SUFFIXES = (".png", ".svg", ".npz", ".json")


@dataclass(frozen=True, eq=False)
class Attribution:
    """The result of `explain`: how much each region of a photo contributes to a class's score, according to one method.

    Attributes:
        heat: Raw values "h w" in the method's own resolution, spanning the whole model input; on the CPU, detached.
        target: What is explained: index of a class, weights by index of a weighted sum of classes, or name of the
            complement of a single label or of a function; `None` for a map that depends on no class, of a model without
            classes.
        label: Its label.
        method: Name of the method.
        parameters: Value of each parameter of the method.
        signed: Whether negative values are evidence against the class.
        geometry: Where the model input lies on the photo.
        photo: The upright RGB photo.
        model: Name of the model.
        probability: Probability of the class, 0 to 1; `None` where what is explained has none.
        against: Index of the class that the target is compared with, or what else `target` may be; `None` without a
            contrast.
        notes: What is wrong with the map, or worth knowing about it, one sentence each.
        patch_values: Whether each value belongs to one patch, so that it is drawn with sharp edges.
        by_layer: From `explain_all`: the attribution at every layer that the method can be shown at, by its name.
        score: Value of what is explained for this photo: in a contrast the difference, else a logit, a probability or
            the output itself, as the parameter `score` of the method says; `None` without a target.
        against_label: Label of what the target is compared with; empty without a contrast.
        class_specific: Whether the map depends on the target.
        trust: How far the map can be trusted, where `vizlib.trust` measured it and `with_trust` added it.
    """

    heat: Float[Tensor, "h w"]
    target: ExplainedRecord
    label: str
    method: str
    parameters: Mapping[str, Any]
    signed: bool
    geometry: Geometry
    photo: Image.Image
    model: str
    probability: float | None
    against: ExplainedRecord = None
    notes: tuple[str, ...] = ()
    patch_values: bool = False
    by_layer: Mapping[str, Attribution] = field(default_factory=dict)
    score: float | None = None
    against_label: str = ""
    class_specific: bool = True
    trust: Trust | None = None

    def with_trust(self, trust: Trust) -> Attribution:
        """Return this attribution with what `vizlib.trust` measured, which files and reports then state.

        Args:
            trust: The measurements.
        """
        return replace(self, trust=trust)

    @property
    def file_stem(self) -> str:
        """A file name without suffix, made of model, method and classes."""
        explained = "" if self.target is None else f"_{_format_record(self.target)}"
        contrast = "" if self.against is None else f"_vs_{_format_record(self.against)}"
        return re.sub(r"[^\w.+-]", "-", f"{self.model}_{self.method}{explained}{contrast}", flags=re.ASCII)

    def project_to_photo(self) -> Float[np.ndarray, "H W"]:
        """Return the raw heat at every pixel of the photo; NaN where the photo was cropped away."""
        return self.geometry.project_to_photo(self.heat, smooth=not self.patch_values)

    def overlay(
        self, *, opacity: float = 0.75, colormap: str | None = None, limits: tuple[float, float] | None = None
    ) -> Image.Image:
        """Return the photo with the heat drawn over it, in the size of the photo; what was cropped away is dimmed.

        Args:
            opacity: Opacity of the strongest heat, 0 to 1.
            colormap: Name of a matplotlib colour map; by default inferno, or for signed heat RdBu_r.
            limits: Values at the two ends of the colour map; pass the same limits to compare two images.

        Raises:
            VizlibError: For an unknown colour map, an opacity outside 0 to 1, or limits that are no range.
        """
        return overlay_heat(
            self.photo, self.project_to_photo(), signed=self.signed, opacity=opacity, colormap=colormap, limits=limits
        )

    def resize_with_heat(self, side: int) -> tuple[Image.Image, Float[np.ndarray, "H W"]]:
        """Return the photo, with no side longer than `side` pixels, and the raw heat at each of its pixels.

        Args:
            side: Longest side of the result in pixels.

        Returns:
            The resized photo, and its raw heat; NaN where the photo was cropped away.
        """
        photo = self.photo.copy()
        photo.thumbnail((side, side))
        size = photo.height, photo.width
        return photo, self.geometry.project_to_photo(self.heat, size, smooth=not self.patch_values)

    def figure(self, title: str | None = None, **style: Any) -> Figure:
        """Return a matplotlib figure of the overlay beside a colour bar of the raw values.

        Args:
            title: Title of the figure; by default method, class and model.
            **style: `opacity`, `colormap` and `limits` of `overlay`.
        """
        photo, heat = self.resize_with_heat(MAX_FIGURE_SIDE_PX)
        parts = {} if self.trust is None else self.trust.parts
        measured = ", ".join(f"{name} {part.text}" for name, part in parts.items())
        text = f"{title or self._title}; {measured}" if measured else title or self._title
        return draw_figure(photo, heat, title=text, signed=self.signed, **style)

    def __repr__(self) -> str:
        rows, columns = self.heat.shape
        low, high = format_number(self.heat.min()), format_number(self.heat.max())
        return f"<Attribution {self._title}: {rows} × {columns} values from {low} to {high}>"

    def _repr_html_(self) -> str:
        """Return the overlay, its colour bar and the notes, for a notebook."""
        photo, heat = self.resize_with_heat(notebook.MAX_SIDE_PIXELS)
        limits = compute_limits(heat, signed=self.signed)
        overlay = overlay_heat(photo, heat, signed=self.signed, limits=limits)
        sentences = () if self.trust is None else (*self.trust.sentences, *self.trust.notes)
        notes = (*self.notes, *sentences)
        return notebook.render_attribution(overlay, self._title, notes, limits=limits, signed=self.signed)

    @property
    def _title(self) -> str:
        """The title of this result; it names a class only where the map depends on it."""
        return f"{self.method} for {self._class_and_model if self.class_specific else self.model}"

    @property
    def _class_and_model(self) -> str:
        """The classes, their probability and the model, as the title of this result states them."""
        if self.target is None:
            return self.model
        contrast = f" against {self.against_label}" if self.against_label else ""
        value = self.text if self.probability is None else f"{100 * self.probability:.3g} %"
        return f"{self.label}{contrast} ({value}), {self.model}"

    @property
    def text(self) -> str:
        """The probability of the class in percent, else the value of what is explained; empty without a target."""
        if self.probability is not None:
            return format_percent(self.probability)
        return "" if self.score is None else format_number(self.score)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the heat itself, ready for JSON."""
        y0, x0, y1, x1 = self.geometry.visible_box
        return {
            "model": self.model,
            "method": self.method,
            "parameters": dict(self.parameters),
            "target": self.target,
            "against": self.against,
            "label": self.label,
            "against_label": self.against_label,
            "probability": self.probability,
            "score": self.score,
            "signed": self.signed,
            "heat": {"shape": list(self.heat.shape), "min": self.heat.min().item(), "max": self.heat.max().item()},
            "photo": {"width": self.photo.width, "height": self.photo.height},
            "seen": {"top": y0, "left": x0, "bottom": y1, "right": x1, "fraction": self.geometry.visible_fraction},
            "notes": list(self.notes),
            **({} if self.trust is None else {"trust": self.trust.to_dict()}),
        }

    def save(self, path: str | Path) -> Path:
        """Write the overlay (`.png`), the overlay beside a colour bar (`.svg`), or the raw values (`.npz`, `.json`).

        An `.npz` file holds `heat`, `on_photo` and, as JSON, `about`. `vizlib.report` writes everything as one page.

        Args:
            path: Path of the file; its suffix selects what is written.

        Returns:
            The path.

        Raises:
            VizlibError: For another suffix, or if the file cannot be written.
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


def _format_record(record: ExplainedRecord) -> str:
    """Return an explained output of an attribution in a few words, for a file name."""
    if isinstance(record, Mapping):
        return "_".join(f"{weight:g}x{index}" for index, weight in record.items())[:MAX_RECORD_LENGTH]
    return str(record)[:MAX_RECORD_LENGTH]


class AttributionDict(dict[str, Attribution]):
    """The results of `explain_all` by name of the method; a notebook shows them side by side."""

    def _repr_html_(self) -> str | None:
        """Return all overlays, each on its own colour scale, and the notes that all of them share."""
        if not self:
            return None
        overlays = {}
        for method, attribution in self.items():
            photo, heat = attribution.resize_with_heat(notebook.GRID_SIDE_PIXELS)
            overlays[method] = overlay_heat(photo, heat, signed=attribution.signed)
        first, *others = self.values()
        shared = [note for note in first.notes if all(note in other.notes for other in others)]
        title = f"{first._class_and_model}; each map on its own colour scale"
        return notebook.render_attribution_grid(overlays, title, shared)


class ExplanationStep(NamedTuple):
    """The result of `explain_stream` after some of the passes of a method; that of the last step is `explain`'s.

    Attributes:
        attribution: The attribution so far.
        done: How many passes it is made from.
        total: How many passes there are in all.
    """

    attribution: Attribution
    done: int
    total: int

    @property
    def fraction(self) -> float:
        """How much of the work is done, 0 to 1."""
        return self.done / self.total
