"""Photos for distillation without labels, decoded once into one memory-mapped file of bytes."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

ARCHIVES = ("imagenette2-160.tar", "photos_unlabelled.zip", "photos_tiny_imagenet_64.zip")
EXCLUDED = (  # Imagenette's training photos that are also among the 260 photos with boxes, which are for evaluation
    "imagenette2-160/train/n02102040/ILSVRC2012_val_00008334.JPEG",
    "imagenette2-160/train/n03000684/ILSVRC2012_val_00004034.JPEG",
)
PHOTO_ENDINGS = (".jpeg", ".jpg", ".png", ".webp")


class PhotoCache:
    """RGB photos of different sizes in one memory-mapped file.

    Attributes:
        names: Path of each photo in its archive.
        sizes: Height and width of each photo in pixels, "photos 2".
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "photos.json").read_text())
        self.names: list[str] = index["names"]
        self.sizes = np.array(index["sizes"], np.int64).reshape(-1, 2)
        ends = np.cumsum(3 * self.sizes.prod(1))
        self._bounds = np.concatenate([[0], ends])
        self._bytes = np.memmap(folder / "photos.bin", np.uint8, "r", shape=(int(ends[-1]),))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return one photo "height width 3", a read-only view of the file."""
        first, last = self._bounds[index : index + 2]
        return self._bytes[first:last].reshape(*self.sizes[index], 3)


def open_photo_cache(data: Path, folder: Path) -> PhotoCache:
    """Return the cache in a folder; it is written first if it is not there.

    Args:
        data: Folder that holds the archives of `ARCHIVES`.
        folder: Folder of the cache, about 2 GB.
    """
    if not (folder / "photos.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        names, sizes = [], []
        with (folder / "photos.tmp").open("wb") as file:
            for name, photo in tqdm(iterate_photos(data), "decoding"):
                pixels = np.asarray(photo)
                file.write(pixels.tobytes())
                names.append(name)
                sizes.append(pixels.shape[:2])
        os.replace(folder / "photos.tmp", folder / "photos.bin")
        (folder / "index.tmp").write_text(json.dumps({"names": names, "sizes": sizes}))
        os.replace(folder / "index.tmp", folder / "photos.json")  # last, so that an interrupted run starts again
    return PhotoCache(folder)


def iterate_photos(data: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield the path and the RGB photo of every training photo, in the order of the archives.

    Raises:
        SystemExit: If Imagenette's archive lacks a photo of `EXCLUDED`, so that the exclusion has no effect.
    """
    missing = set(EXCLUDED)
    for archive in ARCHIVES:
        for name, content in _iterate_files(data / archive):
            if name in EXCLUDED:
                missing.remove(name)
            elif name.lower().endswith(PHOTO_ENDINGS):
                yield name, Image.open(BytesIO(content)).convert("RGB")
    if missing:
        raise SystemExit(f"{ARCHIVES[0]} has no {min(missing)}, which must be excluded; is it another edition?")


def _iterate_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the files of an archive; of Imagenette's only those of the training part."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for name in sorted(opened.namelist()):
                yield name, opened.read(name)
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member) if "/train/" in member.name else None
            if file:
                yield member.name, file.read()
