"""Which bands of a TIFF photo are its colours and its alpha, and the photo that they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vizlib.core.decoding.limits import check_finite
from vizlib.core.decoding.pixel_values import scale_to_uint8, to_image
from vizlib.core.text import Note, format_percent, make_note

# Values of the tags PhotometricInterpretation, SampleFormat and ExtraSamples (TIFF 6.0), and the number of GDAL's tag.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED = 0, 1, 2, 5
UNSIGNED = 1
UNSPECIFIED, PREMULTIPLIED = 0, 1
NO_DATA_TAG = 42113


class TiffBands(NamedTuple):
    """Which bands of a TIFF photo are shown.

    Attributes:
        shown: The index of a grey band, of three colours, or of four inks; empty for values that have no colours.
        alpha: Index of the band with the opacity, if there is one.
        is_premultiplied: Whether the colours are multiplied by the opacity.
        are_guessed: Whether bands without a meaning are shown as colours.
        count: How many bands there are.
    """

    shown: tuple[int, ...]
    alpha: int | None
    is_premultiplied: bool
    are_guessed: bool
    count: int

    @property
    def notes(self) -> tuple[Note, ...]:
        """The notes about bands that are shown as colours without being declared as such, or not shown."""
        notes: tuple[Note, ...] = ()
        left_out = self.count - len(self.shown) - (self.alpha is not None)
        if self.are_guessed:
            notes += (make_note("image.bands-as-colors", count=self.count),)
        elif self.shown and left_out:
            notes += (make_note("image.bands-left-out", count=self.count, left_out=left_out),)
        return notes


def assign_bands(page: Any) -> TiffBands:
    """Return which bands of a TIFF photo's page, as tifffile describes it, are shown."""
    count = page.samplesperpixel
    colors = {RGB: 3, SEPARATED: 4}.get(page.photometric, 1)
    extra = [int(kind) for kind in page.extrasamples][: max(0, count - colors)]
    meanings = [-1] * (count - len(extra)) + extra  # of each band; -1 for a colour
    alpha = next((i for i, meaning in enumerate(meanings) if meaning > UNSPECIFIED), None)
    bands = tuple(i for i, meaning in enumerate(meanings) if meaning <= UNSPECIFIED)
    guessed = False
    if page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        guessed = len(bands) >= 3
        bands = bands[:3] if guessed else bands[:1]
    elif page.photometric in (RGB, SEPARATED) and len(bands) >= colors:
        bands = bands[:colors]
    else:
        bands = ()
    is_premultiplied = alpha is not None and meanings[alpha] == PREMULTIPLIED
    return TiffBands(bands, alpha, is_premultiplied, guessed, count)


def draw_bands(page: Any, values: np.ndarray, bands: TiffBands, bits: int, name: str) -> Image.Image:
    """Return the 8-bit image of a TIFF photo; `info["notes"]` says how its values were scaled, and what is left out.

    Args:
        page: The page, as tifffile describes it.
        values: Its values (H, W, bands).
        bands: Which of them are shown: at least one.
        bits: How many bits each has.
        name: What error messages call the photo.

    Raises:
        ImageError: For values that are not finite.
    """
    white = (1 << bits) - 1 if page.sampleformat == UNSIGNED else None
    if white is not None and white < 255 and values.dtype != bool:
        values, white = scale_to_uint8(values, 0.0, float(white)), 255
    opaque = 1.0 if white is None else float(white)
    colors = values[..., list(bands.shown)]
    if len(bands.shown) == 4:
        inks = scale_to_uint8(colors, 0.0, opaque)
        image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
        image.info["notes"] = bands.notes
        return image
    if page.photometric == WHITE_IS_ZERO:
        colors = _invert(colors, white)
    alpha = None if bands.alpha is None else values[..., bands.alpha]
    if alpha is not None and bands.is_premultiplied:
        colors = _divide_by_alpha(colors, alpha, white)
    notes = bands.notes
    if NO_DATA_TAG in page.tags:
        missing = _find_missing(values, bands.shown, page.nodata)
        if missing.any():
            notes += (make_note("image.no-data", share=format_percent(float(missing.mean()))),)
            colors = _fill(colors, missing)
            alpha = np.where(missing, 0, opaque if alpha is None else alpha)
    check_finite(colors, name)
    if alpha is not None:
        check_finite(alpha, name)
    image = to_image(colors[..., 0] if colors.shape[2] == 1 else colors, alpha, white=white, opaque=opaque)
    image.info["notes"] = notes + image.info["notes"]
    return image


def _invert(colors: np.ndarray, white: int | None) -> np.ndarray:
    """Return the values of a TIFF photo in which 0 is white with 0 as black."""
    if colors.dtype == bool:
        return ~colors
    if white is not None:
        return (white - colors).astype(colors.dtype)
    inverted = -colors.astype(np.float64)
    is_fraction = colors.dtype.kind == "f" and colors.min() >= 0 and colors.max() <= 1
    return inverted + 1 if is_fraction else inverted


def _divide_by_alpha(colors: np.ndarray, alpha: np.ndarray, white: int | None) -> np.ndarray:
    """Return the colours of a TIFF photo that were multiplied by their opacity."""
    share = alpha[..., None].astype(np.float64) / (1 if white is None else white)
    divided = np.divide(colors, share, out=np.zeros(colors.shape), where=share > 0)
    return divided.astype(colors.dtype) if white is None else np.clip(np.rint(divided), 0, white).astype(colors.dtype)


def _find_missing(values: np.ndarray, shown: Sequence[int], no_data: float) -> np.ndarray:
    """Return where no shown band of a TIFF photo has data, by the value that its file declares for that."""
    missing = np.ones(values.shape[:2], dtype=bool)
    for band in shown:
        missing &= np.isnan(values[..., band]) | (values[..., band] == no_data)
    return missing


def _fill(colors: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the colours of a TIFF photo with the lowest one where data are missing, so that they set no range."""
    lowest = 0 if missing.all() else colors[~missing].min()
    return np.where(missing[..., None], lowest, colors).astype(colors.dtype)
