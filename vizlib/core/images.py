"""Open what a person gives as a photo: the only file that opens an upload.

`open_image` makes one kind of thing of everything (an upright RGB picture) or refuses in one sentence.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from torch import Tensor

from vizlib.core.errors import ImageError

MAX_PIXELS = 40_000_000  # a 40-megapixel photo is 120 MB once decoded
MIN_SIDE_PIXELS = 8  # pixels
MAX_ASPECT_RATIO = 50  # a longer strip would be resized to a giant before the model's crop

# No EPS or PDF (they start a program), no ICO (its header hides the size): only formats whose header tells the truth.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
EXPECTED = "expected a photo as JPEG, PNG, WebP, GIF, BMP or TIFF"


# EXIF's orientation mark -> what brings the picture upright; 1 is upright already.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112


def open_image(source: object) -> Image.Image:
    """Open a photo as an upright RGB picture, whatever it comes as.

    `source` is a path, the bytes of a file, an open binary file, a PIL image, or an array or tensor: grey (H, W), or
    with 1, 3 or 4 channels last (or first, as PyTorch has them), as uint8, bool, uint16 or float.

    EXIF orientation is applied, transparency lies on white, an animation gives its first frame. 16-bit and other deep
    values are stretched so that the darkest becomes black and the brightest white; floats within 0 to 1 are taken as
    black to white. What was done is told in plain sentences in `image.info["notes"]`, a tuple, empty for a plain photo.

    Raises: ImageError, a ValueError, for what is not an image, is empty, damaged, under 8 pixels a side, over 40
    megapixels (refused from the header, before decoding), longer than 50 times its width, or an array with NaN or
    another shape. Messages carry at most the file's own name, never its folder.

    >>> open_image(np.zeros((20, 30), dtype=np.uint8)).size
    (30, 20)
    """
    if isinstance(source, Image.Image):
        return _finish(source, "the image")
    if isinstance(source, (np.ndarray, Tensor)):
        return _from_array(source)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(source), "the picture")
    if callable(getattr(source, "read", None)):
        return _from_stream(source)
    raise ImageError(f"expected a photo as a path, bytes, file, array, tensor or PIL image, not {_kind(source)}")


# ---------------------------------------------------------------------------------- where the bytes come from


def _from_path(source: str | os.PathLike[str]) -> Image.Image:
    path = Path(source)
    name = _quoted(path.name)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder, {EXPECTED}")
        if not path.exists():
            raise ImageError(f"there is no file {name} at the place given, {EXPECTED}")
        if not path.is_file():  # a device or pipe may never end
            raise ImageError(f"{name} is not an ordinary file, {EXPECTED}")
        with path.open("rb") as file:
            return _from_file(file, name)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name too long, a zero byte; the error names the folder
        raise ImageError(f"{name} cannot be read ({_reason(error)}), {EXPECTED}") from None


def _from_stream(source: Any) -> Image.Image:
    name = getattr(source, "name", None)
    name = _quoted(Path(name).name) if isinstance(name, str) else "the file"
    try:
        data = source.read()
    except (OSError, ValueError) as error:  # closed, or not opened for reading
        raise ImageError(f"{name} cannot be read ({_reason(error)}), {EXPECTED}") from None
    if not isinstance(data, bytes):
        raise ImageError(f"{name} gives {_kind(data)}, expected bytes: open it in binary mode")
    return _from_file(io.BytesIO(data), name)


def _from_file(file: Any, name: str) -> Image.Image:
    head = file.read(512)
    if not head:
        raise ImageError(f"{name} is empty, {EXPECTED}")
    file.seek(0)
    Image.init()  # fills Image.OPEN, so that a format this Pillow was built without is not asked for
    try:
        image = Image.open(file, formats=[known for known in FORMATS if known in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own, higher limit came first
        raise ImageError(f"{name} has more than {MAX_PIXELS // 1_000_000} megapixels, the most allowed") from None
    except Exception:  # Pillow's readers raise anything on a file they were not made for
        raise ImageError(f"{name} {_what_is_wrong(head)}") from None
    with image:
        return _finish(image, name)


def _from_array(source: np.ndarray | Tensor) -> Image.Image:
    name = "the tensor" if isinstance(source, Tensor) else "the array"
    if isinstance(source, Tensor):
        tensor = source.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy knows no bfloat16
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
    colours, notes = _eight_bit(array[..., :3] if array.ndim == 3 else array)
    if array.ndim == 3 and array.shape[2] == 4:  # alpha keeps its own range: it says how much, not how bright
        alpha = array[..., 3]
        opaque = 65535.0 if alpha.dtype == np.uint16 else 1.0 if alpha.dtype.kind in "bf" else 255.0
        colours = np.dstack([colours, _stretched(alpha, 0.0, opaque)])
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.info["notes"] = notes
    return _finish(image, name)


# ---------------------------------------------------------------------------------- from there to upright RGB


def _finish(image: Image.Image, name: str) -> Image.Image:
    """Check an image that may not be decoded yet, then decode it and make it upright RGB."""
    _check_size(image.width, image.height, name)
    noted = image.info.get("notes")
    notes = noted if isinstance(noted, tuple) else ()  # a file's own text may be called "notes" too, but it is a str
    try:
        # Not `n_frames`, which walks through a whole GIF. An MPO is no animation, but a photo with its previews.
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        image.load()
    except Exception:  # a damaged file raises whatever its reader stumbles on
        started = f"starts as {image.format} but " if isinstance(image, ImageFile.ImageFile) and image.format else ""
        raise ImageError(f"{name} is damaged or cut short: it {started}cannot be decoded to its end") from None
    if animated:
        notes += (f"Only frame {image.tell() + 1} of this animation is looked at.",)
    # Read only now: TIFF is turned by Pillow while it loads, and then has no mark any more.
    upright = UPRIGHT.get(_orientation(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        _check_finite(values, name)
        values, said = _eight_bit(values)
        image, notes = Image.fromarray(values), notes + said
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            notes += ("Its transparent parts were laid on white.",)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "CMYK":
        notes += ("Its printing colours (CMYK) were converted without a colour profile, so they may be a little off.",)
    photo = image.convert("RGB")  # always a new image: the caller's own stays as it was
    photo = photo.transpose(upright) if upright is not None else photo
    photo.info = {"notes": notes}  # without the orientation mark, or a second opening would turn it again
    return photo


def _check_size(width: int, height: int, name: str) -> None:
    size = f"{name} is {width} × {height} pixels"
    if min(width, height) < MIN_SIDE_PIXELS:
        raise ImageError(f"{size}, expected at least {MIN_SIDE_PIXELS} on each side")
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise ImageError(f"{size}, {width * height / 1e6:.0f} megapixels, expected at most {limit} megapixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(f"{size}, expected a photo at most {MAX_ASPECT_RATIO} times as long as it is wide")


def _check_finite(values: np.ndarray, name: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name} holds NaN or infinite values, expected finite numbers")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a photo with broken EXIF is still a photo
        return 1


def _eight_bit(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Any finite numbers as uint8, and what was done to them."""
    if values.dtype == np.uint8:
        return values, ()
    if values.dtype == bool:
        return values.astype(np.uint8) * 255, ()
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return _stretched(values, 0.0, 1.0), ("Its float values were taken as 0 (black) to 1 (white).",)
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2 and low >= 0 and high <= 255:
        return values.astype(np.uint8), ()  # an 8-bit picture that some sum or cast has widened
    kind = "float" if values.dtype.kind == "f" else f"{8 * values.dtype.itemsize}-bit"
    said = f"Its {kind} values from {low:g} (now black) to {high:g} (now white) were scaled to 8 bits."
    return _stretched(values, low, high), (said,)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` as uint8 from 0 to 255, rounded and clipped; black if there is no range."""
    scaled = values.astype(np.float64)
    scaled -= low
    scaled *= 255 / (high - low) if high > low else 0
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


# ---------------------------------------------------------------------------------- words for what is wrong


def _what_is_wrong(head: bytes) -> str:
    """The rest of a sentence about a file that Pillow does not read, from its first bytes."""
    photo = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
    if head.startswith(photo) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "is damaged or cut short: it starts as an image but cannot be decoded"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            return f"is a HEIC photo, which cannot be read here, {EXPECTED}"
        return f"is a video or a photo of a kind that cannot be read here, {EXPECTED}"
    if head.startswith(b"%PDF"):
        return f"is a PDF, not an image, {EXPECTED}"
    text = head.decode("utf-8", errors="ignore").lower()
    if b"\0" in head or len(text.encode()) < len(head) - 3:  # up to three bytes of a character may be cut off
        return f"is not an image, {EXPECTED}"
    if "<svg" in text:
        return f"is an SVG drawing, not a photo, {EXPECTED}"
    if "<html" in text or "<!doctype html" in text:
        return f"is a web page, not an image, {EXPECTED}"
    return f"is text, not an image, {EXPECTED}"


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...") if name else "the place given"


def _reason(error: Exception) -> str:
    """Why, without the path that an OSError puts in its message."""
    return (error.strerror or "no access") if isinstance(error, OSError) else "not a valid name or file"


def _kind(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
