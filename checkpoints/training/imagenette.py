"""Imagenette (fastai): ten easily distinguished classes of ImageNet, 9,469 training and 3,925 validation photos."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo
from tqdm import tqdm

CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks
LABELS = {  # WordNet id -> label, in the order of the dataset's folders
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
IMAGENET_INDICES = [
    ImageNetInfo().label_names().index(wnid) for wnid in LABELS
]  # indices among ImageNet's 1,000 classes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


PhotoTransform = Callable[[Image.Image], torch.Tensor]


class PhotoDataset(torch.utils.data.Dataset):
    """Imagenette's photos, decoded once and held in memory (about 1 GB), so that epochs need no JPEG decoding.

    Attributes:
        photos: RGB images and their labels, 0 to 9.
        transform: From an image to a tensor; set it before the first item is read.
    """

    def __init__(self, files: list[tuple[Path, int]]) -> None:
        self.photos = [(Image.open(path).convert("RGB"), label) for path, label in tqdm(files, "decoding", leave=False)]
        self.transform: PhotoTransform | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int):
        assert self.transform is not None
        photo, label = self.photos[index]
        return self.transform(photo), label


@contextlib.contextmanager
def open_imagenette(data: str | None) -> Iterator[Path]:
    """Yield the folder that holds `train/` and `val/`.

    Args:
        data: A folder; a tar archive, which is unpacked into a temporary folder; or None to download Imagenette.
    """
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
    """Return the photos of one split, `train` or `val`, with labels from 0 to 9."""
    files = [(path, label) for label, wnid in enumerate(LABELS) for path in sorted((folder / split / wnid).iterdir())]
    return PhotoDataset(files)
