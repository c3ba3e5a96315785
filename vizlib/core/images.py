"""Open a photo: the only module that decodes an uploaded file.

`open_image` turns every accepted source into an upright RGB image, or raises `ImageError` with one sentence.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from vizlib.core.errors import ImageError
from vizlib.core.text import Note, make_note

MAX_PIXELS = 40_000_000  # a 40-megapixel photo takes 120 MB once decoded
MIN_SIDE_PIXELS = 8
MAX_ASPECT_RATIO = 50  # a longer strip would be resized to a huge image before the model's crop

# No EPS or PDF (Pillow starts a program for them) and no ICO (its header does not hold the size of the image).
PILLOW_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"  # what error messages recommend
EXPECTED = f"expected a photo as {FORMAT_NAMES}"

PhotoSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor
)  # what `open_image` opens


def open_image(source: object) -> Image.Image:
    """Return a photo as an upright RGB image.

    EXIF orientation is applied, transparency is composited on white, and of an animation the first frame is taken.
    16-bit and other deep values are scaled so that the lowest becomes black and the highest white; floats within 0 to
    1 are taken as black to white.

    Args:
        source: A path, the bytes of a file, an open binary file, a PIL image, or an array or tensor of shape (H, W)
            or (H, W, C) or (C, H, W) with 1, 3 or 4 channels, as uint8, bool, uint16 or float.

    Returns:
        A new image in mode RGB. `image.info["notes"]` is a tuple of notes about the conversions made; it is empty for
        an ordinary photo.

    Raises:
        ImageError: For a source that is not an image, is empty or damaged, has a side under 8 pixels or more than 40
            megapixels (found from the header, before decoding), is more than 50 times as long as wide, or for an array
            with NaN or another shape. The message names at most the file, never its folder.

    Example:
        >>> import numpy as np
        >>> open_image(np.zeros((20, 30), dtype=np.uint8)).size
        (30, 20)
    """
    if isinstance(source, Image.Image):
        return _convert(source, "the image", owned=False)
    if isinstance(source, (np.ndarray, Tensor)):
        return _open_array(source)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open_file(io.BytesIO(source), "the picture")
    if callable(getattr(source, "read", None)):
        return _open_stream(source)
    raise ImageError(f"expected a photo as a path, bytes, file, array, tensor or PIL image, not {_describe(source)}")


# ---------------------------------------------------------------------------------- sources


def _open_path(source: str | os.PathLike[str]) -> Image.Image:
    """Open the photo in a file, given by its path."""
    path = Path(source)
    name = _quote(path.name)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder, {EXPECTED}")
        if not path.exists():
            raise ImageError(f"there is no file {name} at the path given, {EXPECTED}")
        if not path.is_file():  # reading a device or pipe may never end
            raise ImageError(f"{name} is not a regular file, {EXPECTED}")
        with path.open("rb") as file:
            return _open_file(file, name)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name too long, a zero byte; its own message has the path
        raise ImageError(f"{name} cannot be read ({_reason(error)}), {EXPECTED}") from None


def _open_stream(source: Any) -> Image.Image:
    """Open the photo in a binary file object."""
    name = getattr(source, "name", None)
    name = _quote(Path(name).name) if isinstance(name, str) else "the file"
    try:
        data = source.read()
    except (OSError, ValueError) as error:  # closed, or not opened for reading
        raise ImageError(f"{name} cannot be read ({_reason(error)}), {EXPECTED}") from None
    if not isinstance(data, bytes):
        raise ImageError(f"{name} gives {_describe(data)}, expected bytes: open it in binary mode")
    return _open_file(io.BytesIO(data), name)


def _open_file(file: Any, name: str) -> Image.Image:
    """Open the photo in an open file."""
    head = file.read(512)
    if not head:
        raise ImageError(make_note("image.empty", file=name, formats=FORMAT_NAMES))
    file.seek(0)
    Image.init()  # fills Image.OPEN, which lacks the formats that this build of Pillow does not support
    try:
        image = Image.open(file, formats=[kind for kind in PILLOW_FORMATS if kind in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own, higher limit
        raise ImageError(make_note("image.too-many-pixels", file=name, limit=MAX_PIXELS // 1_000_000)) from None
    except Exception:  # Pillow's readers raise any exception on a file of another format
        raise ImageError(_explain_unreadable(head, name)) from None
    with image:
        return _convert(image, name)


def _open_array(source: np.ndarray | Tensor) -> Image.Image:
    """Return the photo in an array or tensor of pixels."""
    name = "the tensor" if isinstance(source, Tensor) else "the array"
    if isinstance(source, Tensor):
        tensor = source.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
    else:
        array = source
    shape = array.shape
    if array.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise ImageError(f"{name} has shape {shape}, expected (height, width) or (height, width, 1, 3 or 4)")
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} holds {array.dtype}, expected uint8, uint16 or float numbers")
    _check_size(array.shape[1], array.shape[0], name)
    _check_finite(array, name)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    colours, notes = _to_eight_bits(array[..., :3] if array.ndim == 3 else array)
    if array.ndim == 3 and array.shape[2] == 4:  # alpha is scaled by its own range, not by that of the colours
        alpha = array[..., 3]
        opaque = 65535.0 if alpha.dtype == np.uint16 else 1.0 if alpha.dtype.kind in "bf" else 255.0
        colours = np.dstack([colours, _scale_array_to_uint8(alpha, 0.0, opaque)])
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.info["notes"] = notes
    return _convert(image, name)


# ---------------------------------------------------------------------------------- conversion to upright RGB


def _convert(image: Image.Image, name: str, *, owned: bool = True) -> Image.Image:
    """Check a photo that may not be decoded yet, decode it and return it as upright RGB.

    Args:
        image: An opened image.
        name: What error messages call it.
        owned: Whether the image may be changed, as this module opened it.
    """
    _check_size(image.width, image.height, name)
    previous = image.info.get("notes")
    notes: tuple[str, ...] = previous if isinstance(previous, tuple) else ()  # a str comes from the file's own text
    try:
        # `n_frames` would read a whole GIF. An MPO is not an animation but a photo with previews.
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        image.load()
    except Exception:  # a damaged file makes its reader raise any exception
        started = f"starts as {image.format} but " if isinstance(image, ImageFile.ImageFile) and image.format else ""
        raise ImageError(make_note("image.incomplete", file=name, started=started)) from None
    if animated:
        notes += (make_note("image.animation", frame=image.tell() + 1),)
    # Only now: Pillow applies the orientation of a TIFF while it loads, and removes it.
    image = _apply_orientation(image, in_place=owned)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        _check_finite(values, name)
        values, conversion_notes = _to_eight_bits(values)
        image, notes = Image.fromarray(values), notes + conversion_notes
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            notes += (make_note("image.alpha"),)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "CMYK":
        notes += (make_note("image.cmyk"),)
    photo = image.convert("RGB")  # always a new image: the caller's stays as it was
    photo.info = {"notes": notes}  # no orientation, or opening the photo again would rotate it again
    return photo


def _apply_orientation(image: Image.Image, *, in_place: bool) -> Image.Image:
    """Return the photo upright, by its EXIF orientation."""
    try:
        upright = ImageOps.exif_transpose(image, in_place=in_place)
    except Exception:  # a photo with broken EXIF is still a photo
        return image
    return image if upright is None else upright


def _check_size(width: int, height: int, name: str) -> None:
    """Raise an `ImageError` for a photo that is too small, too large, or too long and thin."""
    size = f"{width} × {height}"
    if min(width, height) < MIN_SIDE_PIXELS:
        raise ImageError(make_note("image.too-small", file=name, size=size, limit=MIN_SIDE_PIXELS))
    if width * height > MAX_PIXELS:
        facts = {"megapixels": f"{width * height / 1e6:.0f}", "limit": MAX_PIXELS // 1_000_000}
        raise ImageError(make_note("image.too-large", file=name, size=size, **facts))
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(make_note("image.too-long", file=name, size=size, limit=MAX_ASPECT_RATIO))


def _check_finite(values: np.ndarray, name: str) -> None:
    """Raise an `ImageError` for an array of pixels with NaN or infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(make_note("image.not-finite", file=name))


def _to_eight_bits(values: np.ndarray) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Return pixels of any finite numbers as uint8, and a note if they were scaled."""
    if values.dtype == np.uint8:
        return values, ()
    if values.dtype == bool:
        return values.astype(np.uint8) * 255, ()
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return _scale_array_to_uint8(values, 0.0, 1.0), (make_note("image.unit-floats"),)
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2 and low >= 0 and high <= 255:
        return values.astype(np.uint8), ()  # an 8-bit image that a sum or cast has widened
    kind = "float" if values.dtype.kind == "f" else f"{8 * values.dtype.itemsize}-bit"
    note = make_note("image.scaled", kind=kind, low=f"{low:g}", high=f"{high:g}")
    return _scale_array_to_uint8(values, low, high), (note,)


def _scale_array_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return pixels from `low` to `high` as uint8 from 0 to 255, rounded and clipped; all 0 if the range is empty."""
    scaled = values.astype(np.float64)
    scaled -= low
    scaled *= 255 / (high - low) if high > low else 0
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


# ---------------------------------------------------------------------------------- error messages


def _explain_unreadable(head: bytes, name: str) -> Note:
    """Return the error message for a file that Pillow does not read, from the first bytes of the file."""
    photo = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
    if head.startswith(photo) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return make_note("image.damaged", file=name)
    return make_note(_classify(head), file=name, formats=FORMAT_NAMES)


def _classify(head: bytes) -> str:
    """Return the code of the note about an uploaded file that is no image, from its first bytes."""
    if head[4:8] == b"ftyp":
        return "image.heic" if head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1") else "image.video"
    if head.startswith(b"%PDF"):
        return "image.pdf"
    text = head.decode("utf-8", errors="ignore").lower()
    if b"\0" in head or len(text.encode()) < len(head) - 3:  # up to three bytes of the last character may be cut off
        return "image.not-image"
    if "<svg" in text:
        return "image.svg"
    return "image.web-page" if "<html" in text or "<!doctype html" in text else "image.text"


def _quote(name: str) -> str:
    """Return the name of a photo's file in quotation marks, for an error message."""
    return repr(name if len(name) <= 80 else name[:77] + "...") if name else "the path given"


def _reason(error: Exception) -> str:
    """Return why a photo cannot be opened, without the path that an OSError puts into its message."""
    return (error.strerror or "no access") if isinstance(error, OSError) else "not a valid name or file"


def _describe(value: object) -> str:
    """Return what was given in place of a photo, for an error message."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
