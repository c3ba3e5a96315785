"""Open a photo: the only module that decodes an uploaded file.

`open_image` turns every accepted source into an upright RGB image, or raises `ImageError` with one sentence.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from vizlib.core.decoding.deep_files import find_lost_bits, read_deep_values
from vizlib.core.decoding.file_kinds import RAW, explain_unreadable, find_file_kind
from vizlib.core.decoding.limits import EXPECTED, FORMAT_NAMES, MAX_PIXELS, check_finite, check_size
from vizlib.core.decoding.pixel_values import to_eight_bits, to_image
from vizlib.core.decoding.tiff_files import TIFF_STARTS, TiffReading, read_tiff
from vizlib.core.errors import ImageError
from vizlib.core.text import make_note

# No EPS or PDF (Pillow starts a program for them) and no ICO (its header does not hold the size of the image).
PILLOW_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
ANIMATION_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")  # other formats hold several photos
DEEP_FORMATS = ("PNG", "TIFF", "PPM", "JPEG2000")
HEAD_BYTES = 512
ORIENTATION = 0x0112  # tag of EXIF
URL = re.compile(r"([a-z][a-z0-9+.-]+):/|data:", re.IGNORECASE)  # with one slash too, as in a `Path` of a URL

for _reader in ("PIL", "tifffile"):  # what they log about a file would be printed beside the one sentence about it
    logging.getLogger(_reader).addHandler(logging.NullHandler())

PhotoSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor
)  # what `open_image` opens


def open_image(source: object) -> Image.Image:
    """Return a photo as an upright RGB image.

    EXIF orientation is applied, transparency is composited on white, and of an animation or of several pages the first
    is taken. Values of more than 8 bits are scaled so that the lowest becomes black and the highest white; colours that
    use the upper half of their range keep it (0 becomes black), and floats within 0 to 1 are taken as black to white.
    Bands of a TIFF that its file does not call colours are shown as red, green and blue.

    Args:
        source: A path (`~` is the home folder), the bytes of a file, an open binary file, a PIL image, or an array or
            tensor of shape (H, W) or (H, W, C) or (C, H, W) with 1, 3 or 4 channels, as uint8, bool, uint16 or float.

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
        data = _read_undecoded(source)
        return _convert(source, "the image", owned=False) if data is None else _open_file(io.BytesIO(data), "the image")
    if isinstance(source, (np.ndarray, Tensor)):
        return _open_array(source)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open_file(io.BytesIO(source), "the picture")
    if callable(getattr(source, "read", None)):
        return _open_stream(source)
    several = "; explain_each takes several photos" if isinstance(source, Iterator) else ""
    given = f"not {_describe(source)}{several}"
    raise ImageError(f"expected a photo as a path, bytes, file, array, tensor or PIL image, {given}")


# ---------------------------------------------------------------------------------- sources


def _open_path(source: str | os.PathLike[str]) -> Image.Image:
    """Open the photo in a file, given by its path."""
    text = os.fsdecode(source)
    path = Path(text)
    name = _quote(path.name)
    try:
        if (url := URL.match(text)) and not path.exists():
            what = f"{name} is an address ({url[1]})" if url[1] else "the text is a data URL"
            raise ImageError(f"{what}, {EXPECTED} in a file or as bytes")
        if text.startswith("~") and not path.exists():
            path = path.expanduser()
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
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a name too long, a zero byte, no home folder
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
    head = file.read(HEAD_BYTES)
    if not head:
        raise ImageError(make_note("image.empty", file=name, formats=FORMAT_NAMES))
    if (kind := find_file_kind(head)) and kind.code == RAW:  # of some Pillow would open the preview
        raise ImageError(make_note(RAW, file=name, format=kind.format, formats=FORMAT_NAMES))
    is_tiff = head.startswith(TIFF_STARTS)
    tiff = read_tiff(file, name) if is_tiff else TiffReading(None)
    if tiff.image is not None:
        return _convert(tiff.image, name)
    formats = _list_pillow_formats(head)
    file.seek(0)
    try:
        image = Image.open(file, formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own, higher limit
        raise ImageError(make_note("image.too-many-pixels", file=name, limit=MAX_PIXELS // 1_000_000)) from None
    except Exception:  # Pillow's readers raise any exception on a file of another format
        tiff = read_tiff(file, name, always=True) if is_tiff else tiff
        if tiff.image is None:
            raise ImageError(explain_unreadable(head, file, name, can_read_heic="HEIF" in formats)) from None
        return _convert(tiff.image, name)
    with image:
        image.info["notes"] = tiff.notes
        return _convert(image, name, file=file)


def _list_pillow_formats(head: bytes) -> list[str]:
    """Return the names of the formats that Pillow may read a photo in, which starts with the given bytes."""
    Image.init()  # fills Image.OPEN, which lacks the formats that this build of Pillow does not support
    if head[4:8] == b"ftyp" and "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:  # it belongs to the extra vizlib[images]
            pass
        else:
            pillow_heif.register_heif_opener(thumbnails=False)
    return [kind for kind in PILLOW_FORMATS if kind in Image.OPEN]


def _read_undecoded(image: Image.Image) -> bytes | None:
    """Return the file of a photo that Pillow has opened but not decoded, and of which it may lose something."""
    file = getattr(image, "fp", None)
    is_undecoded = isinstance(image, ImageFile.ImageFile) and image.format in DEEP_FORMATS and bool(image.tile)
    if not is_undecoded or file is None or image.tell() != 0:
        return None
    try:
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
    except (OSError, ValueError):
        return None
    return data


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
    check_size(array.shape[1], array.shape[0], name)
    check_finite(array, name)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    alpha = array[..., 3] if array.ndim == 3 and array.shape[2] == 4 else None
    opaque = 65535.0 if array.dtype == np.uint16 else 1.0 if array.dtype.kind in "bf" else 255.0
    return _convert(to_image(array[..., :3] if array.ndim == 3 else array, alpha, opaque=opaque), name)


# ---------------------------------------------------------------------------------- conversion to upright RGB


def _convert(image: Image.Image, name: str, *, owned: bool = True, file: Any = None) -> Image.Image:
    """Check a photo that may not be decoded yet, decode it and return it as upright RGB.

    Args:
        image: An opened image.
        name: What error messages call it.
        owned: Whether the image may be changed, as this module opened it.
        file: The file that it was opened from; what Pillow loses is read from there.
    """
    check_size(image.width, image.height, name)
    previous = image.info.get("notes")
    notes: tuple[str, ...] = previous if isinstance(previous, tuple) else ()  # a str comes from the file's own text
    try:
        animated = _is_animated(image) and not (image.format == "TIFF" and file is not None)  # `read_tiff` has looked
        is_file = isinstance(image, ImageFile.ImageFile)
        deep = read_deep_values(image, file, name) if is_file and file is not None else None
        image.load()
        lost_bits = find_lost_bits(image) if is_file and deep is None else None
    except ImageError:
        raise
    except Exception:  # a damaged file makes its reader raise any exception
        started = f"starts as {image.format} but " if isinstance(image, ImageFile.ImageFile) and image.format else ""
        raise ImageError(make_note("image.incomplete", file=name, started=started)) from None
    if animated:
        several = "image.animation" if image.format in ANIMATION_FORMATS else "image.pages"
        notes += (make_note(several, frame=image.tell() + 1),)
    if lost_bits is not None:
        notes += (make_note("image.lost-bits", bits=lost_bits),)
    if deep is not None:
        decoded = to_image(deep.colors, deep.alpha, white=deep.white, opaque=float(deep.white))
        with suppress(Exception):  # a photo with broken EXIF is still a photo
            decoded.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        image, notes, owned = decoded, notes + decoded.info["notes"], True
    # Only now: Pillow applies the orientation of a TIFF while it loads, and removes it.
    image = _apply_orientation(image, in_place=owned)
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        check_finite(values, name)
        values, conversion_notes = to_eight_bits(values)
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


def _is_animated(image: Image.Image) -> bool:
    """Return whether a photo is one of several in its file, without reading all of them as `n_frames` would."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))  # an MPO is a photo with previews


def _apply_orientation(image: Image.Image, *, in_place: bool) -> Image.Image:
    """Return the photo upright, by its EXIF orientation."""
    try:
        upright = ImageOps.exif_transpose(image, in_place=in_place)
    except Exception:  # a photo with broken EXIF is still a photo
        return image
    return image if upright is None else upright


# ---------------------------------------------------------------------------------- error messages


def _quote(name: str) -> str:
    """Return the name of a photo's file in quotation marks, for an error message."""
    return repr(name if len(name) <= 80 else name[:77] + "...") if name else "the path given"


def _reason(error: Exception) -> str:
    """Return why a photo cannot be opened, without the path that an OSError puts into its message."""
    return (error.strerror or "no access") if isinstance(error, OSError) else "not a valid name or file"


def _describe(value: object) -> str:
    """Return what was given in place of a photo, for an error message."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
