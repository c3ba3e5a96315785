"""Recognise files that are not opened as photos by their first bytes, and say what they are."""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

from vizlib.core.decoding.limits import FORMAT_NAMES
from vizlib.core.text import Note, make_note

# Suffixes of the files that are looked for in a folder of photos.
_SUFFIXES = """
    png apng jpg jpeg jpe jfif mpo gif webp avif avifs heic heif hif bmp dib tif tiff
    ppm pgm pbm pnm jp2 j2k jpc jpf jpx j2c"""
PHOTO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
PHOTO_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_JPEG_SEGMENTS = 200  # before the size segment of a JPEG file


class FileKind(NamedTuple):
    """A kind of file that is told by its name.

    Attributes:
        start: The bytes by which it is recognised.
        format: Its name.
        code: Code of the note that refuses it.
        package: What reads its numbers into an array.
        offset: Where in the file its bytes are.
    """

    start: bytes
    format: str
    code: str = "image.other-format"
    package: str = ""
    offset: int = 0


NUMBERS, RAW, VIDEO, ARCHIVE, HEIC = "image.numbers", "image.raw", "image.video", "image.archive", "image.heic"
FILE_KINDS = (
    FileKind(b"DICM", "DICOM", NUMBERS, "pydicom", 128),
    FileKind(b"SIMPLE  =", "FITS", NUMBERS, "astropy"),
    FileKind(b"n+1\0", "NIfTI", NUMBERS, "nibabel", 344),
    FileKind(b"ni1\0", "NIfTI", NUMBERS, "nibabel", 344),
    FileKind(b"n+2\0", "NIfTI", NUMBERS, "nibabel", 4),
    FileKind(b"\x89HDF\r\n\x1a\n", "HDF5", NUMBERS, "h5py"),
    FileKind(b"CDF\x01", "NetCDF", NUMBERS, "netCDF4"),
    FileKind(b"CDF\x02", "NetCDF", NUMBERS, "netCDF4"),
    FileKind(b"MATLAB 5.0", "MATLAB", NUMBERS, "scipy.io"),
    FileKind(b"MATLAB 7.3", "MATLAB", NUMBERS, "h5py"),
    FileKind(b"NRRD0", "NRRD", NUMBERS, "pynrrd"),
    FileKind(b"ObjectType", "MetaImage", NUMBERS, "SimpleITK"),
    FileKind(b"\x93NUMPY", "NumPy", NUMBERS, "numpy"),
    FileKind(b"ZISRAWFILE", "Zeiss CZI", NUMBERS, "pylibCZIrw"),
    FileKind(b"\xda\xce\xbe\x0a", "Nikon ND2", NUMBERS, "nd2"),
    FileKind(b"CR\x02", "Canon CR2", RAW, offset=8),
    FileKind(b"ftypcrx ", "Canon CR3", RAW, offset=4),
    FileKind(b"FUJIFILMCCD-RAW", "Fujifilm RAF", RAW),
    FileKind(b"IIRO", "Olympus ORF", RAW),
    FileKind(b"IIRS", "Olympus ORF", RAW),
    FileKind(b"MMOR", "Olympus ORF", RAW),
    FileKind(b"IIU\0", "Panasonic RW2", RAW),
    FileKind(b"FOVb", "Sigma X3F", RAW),
    FileKind(b"\0MRM", "Minolta MRW", RAW),
    FileKind(b"8BPS", "Photoshop PSD"),
    FileKind(b"gimp xcf", "GIMP XCF"),
    FileKind(b"\0\0\1\0", "ICO"),
    FileKind(b"\0\0\2\0", "CUR"),
    FileKind(b"icns", "ICNS"),
    FileKind(b"%!PS", "PostScript"),
    FileKind(b"\xc5\xd0\xd3\xc6", "EPS"),
    FileKind(b"\xff\x0a", "JPEG XL"),
    FileKind(b"JXL ", "JPEG XL", offset=4),
    FileKind(b"II\xbc\x01", "JPEG XR"),
    FileKind(b"\x76\x2f\x31\x01", "OpenEXR"),
    FileKind(b"#?RADIANCE", "Radiance HDR"),
    FileKind(b"#?RGBE", "Radiance HDR"),
    FileKind(b"PF\n", "PFM"),
    FileKind(b"P7\n", "PAM"),
    FileKind(b"DDS ", "DDS"),
    FileKind(b"qoif", "QOI"),
    FileKind(b"AT&TFORM", "DjVu"),
    FileKind(b"BPG\xfb", "BPG"),
    FileKind(b"\xd7\xcd\xc6\x9a", "WMF"),
    FileKind(b" EMF", "EMF", offset=40),
    FileKind(b"\x1a\x45\xdf\xa3", "Matroska", VIDEO),
    FileKind(b"AVI ", "AVI", VIDEO, offset=8),
    FileKind(b"\0\0\1\xba", "MPEG", VIDEO),
    FileKind(b"\0\0\1\xb3", "MPEG", VIDEO),
    FileKind(b"FLV\x01", "Flash video", VIDEO),
    FileKind(b"OggS", "Ogg", VIDEO),
    FileKind(b"PK\x03\x04", "ZIP", ARCHIVE),
    FileKind(b"\x1f\x8b", "gzip", ARCHIVE),
    FileKind(b"7z\xbc\xaf\x27\x1c", "7z", ARCHIVE),
    FileKind(b"Rar!", "RAR", ARCHIVE),
)
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


def explain_unreadable(head: bytes, file: Any, name: str, *, can_read_heic: bool) -> Note:
    """Return the error message for a photo that no reader opens.

    Args:
        head: The first 512 bytes of its file.
        file: The file.
        name: What the message calls it.
        can_read_heic: Whether Pillow reads HEIC photos here, so that one that is not read is damaged.
    """
    if head.startswith(b"\xff\xd8\xff") and (kind := _describe_jpeg(file)):
        return make_note("image.other-format", file=name, format=kind, formats=FORMAT_NAMES)
    if head.startswith(PHOTO_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return make_note("image.damaged", file=name)
    if kind := find_file_kind(head):
        facts = {"format": kind.format, "package": kind.package, "formats": FORMAT_NAMES}
        return make_note(kind.code, file=name, **facts)
    code = _classify(head)
    return make_note("image.damaged" if can_read_heic and code == HEIC else code, file=name, formats=FORMAT_NAMES)


def find_file_kind(head: bytes) -> FileKind | None:
    """Return the kind of a file that is no photo from its first 512 bytes; `None` for one that the table lacks."""
    if head.startswith(b"\x1f\x8b"):
        try:
            content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 512)
        except zlib.error:
            content = b""
        numbers = (kind for kind in FILE_KINDS if kind.code == NUMBERS)
        if kind := next((kind for kind in numbers if content.startswith(kind.start, kind.offset)), None):
            return kind  # as in `brain.nii.gz`
    return next((kind for kind in FILE_KINDS if head.startswith(kind.start, kind.offset)), None)


def _classify(head: bytes) -> str:
    """Return the code of the note about a file that is no photo and not in the table, from its first bytes."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return HEIC if brand in HEIC_BRANDS else "image.avif" if brand in AVIF_BRANDS else VIDEO
    if head.startswith(b"%PDF"):
        return "image.pdf"
    text = head.decode("utf-8", errors="ignore").lower()
    if b"\0" in head or len(text.encode()) < len(head) - 3:  # up to three bytes of the last character may be cut off
        return "image.not-image"
    if "<svg" in text:
        return "image.svg"
    return "image.web-page" if "<html" in text or "<!doctype html" in text else "image.text"


def _describe_jpeg(file: Any) -> str:
    """Return the name of a kind of JPEG photo that is not read; empty for an ordinary one or a damaged one."""
    file.seek(2)
    for _ in range(MAX_JPEG_SEGMENTS):
        segment = file.read(5)
        if len(segment) < 5 or segment[0] != 0xFF:
            return ""
        marker, length, bits = segment[1], struct.unpack(">H", segment[2:4])[0], segment[4]
        if marker == 0xF7:
            return "JPEG-LS"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the segment with size and depth
            return f"{bits}-bit JPEG" if bits != 8 else "lossless JPEG" if marker in (0xC3, 0xC7, 0xCB, 0xCF) else ""
        file.seek(length - 3, 1)
    return ""
