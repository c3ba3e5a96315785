"""The codecs for deep photos that are installed with `vizlib[images]`."""

from __future__ import annotations

from vizlib.core.decoding.limits import FORMAT_NAMES
from vizlib.core.errors import ImageError
from vizlib.core.text import make_note


def has_codecs() -> bool:
    """Return whether imagecodecs is installed, which decodes TIFF and JPEG 2000 photos."""
    try:
        import imagecodecs  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return False
    return True


def missing_codec_error(name: str, bits: int, compression: str) -> ImageError:
    """Return the error about a photo that is read only with the codecs."""
    facts = {"bits": bits, "compression": compression, "formats": FORMAT_NAMES}
    return ImageError(make_note("image.needs-codec", file=name, **facts))
