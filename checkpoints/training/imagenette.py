"""Imagenette (fastai): ten easy classes of ImageNet, 9,469 photos to train on and 3,925 to measure on."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from timm.data import ImageNetInfo
from tqdm import tqdm

CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks
LABELS = {  # Imagenette's ten of ImageNet's thousand classes, in the order of its folders
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGENET_INDICES = [ImageNetInfo().label_names().index(wnid) for wnid in LABELS]  # their places among ImageNet's thousand
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PhotoDataset(torch.utils.data.Dataset):
    """Imagenette's photos decoded once and kept in memory (about 1 GB), so an epoch costs no JPEG decoding."""

    def __init__(self, files: list[tuple[Path, int]]) -> None:
        self.photos = [(Image.open(path).convert("RGB"), label) for path, label in tqdm(files, "decoding", leave=False)]
        self.transform = None

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int):
        photo, label = self.photos[index]
        return self.transform(photo), label


@contextlib.contextmanager
def open_imagenette(data: str | None) -> Iterator[Path]:
    """Give the folder that holds `train/` and `val/`: a folder, a tar unpacked for the time being, or a download."""
    if data is None:
        from torchvision.datasets import Imagenette

        root = CHECKPOINTS / "runs" / "data"
        folder = root / "imagenette2-160"
        if not folder.exists():
            Imagenette(root, size="160px", download=True)
        yield folder
    elif Path(data).is_file():
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(data) as archive:
                archive.extractall(folder, filter="data")
            yield next(Path(folder).glob("**/train")).parent
    else:
        yield next(Path(data).glob("**/train")).parent


def load_photos(folder: Path, split: str) -> PhotoDataset:
    """The photos of one split, `train` or `val`, with their labels' places among the ten."""
    files = [(path, label) for label, wnid in enumerate(LABELS) for path in sorted((folder / split / wnid).iterdir())]
    return PhotoDataset(files)
