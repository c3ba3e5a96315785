"""Photos for distillation: which are read, how they are stored, and the batches drawn from them."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints.training.imagenette import MEAN, STD
from checkpoints.training.photo_batches import draw_batch
from checkpoints.training.photo_cache import EXCLUDED, open_photo_cache


def encode_photo(colour: int, size: tuple[int, int] = (12, 10)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (colour, 2 * colour, 7)).save(file, "PNG")
    return file.getvalue()


def write_archives(folder: Path, excluded: tuple[str, ...]) -> None:
    train, val = "imagenette2-160/train/n01440764/a.JPEG", "imagenette2-160/val/n01440764/b.JPEG"
    with tarfile.open(folder / "imagenette2-160.tar", "w") as archive:
        for name, colour in ((train, 1), (val, 2), *((name, 3) for name in excluded)):
            entry, content = tarfile.TarInfo(name), encode_photo(colour)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    for number, name in enumerate(("photos_unlabelled.zip", "photos_tiny_imagenet_64.zip")):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("readme.txt", "no photo")
            archive.writestr(f"source/{number}.webp", encode_photo(10 + number, (8 + number, 9)))


def test_cache_holds_the_training_photos_without_the_excluded_ones(tmp_path):
    write_archives(tmp_path, EXCLUDED)
    open_photo_cache(tmp_path, tmp_path / "cache")
    for archive in tmp_path.glob("*.*"):
        archive.unlink()
    photos = open_photo_cache(tmp_path, tmp_path / "cache")  # from the files
    assert photos.names == ["imagenette2-160/train/n01440764/a.JPEG", "source/0.webp", "source/1.webp"]
    assert [photos[index].shape for index in range(len(photos))] == [(10, 12, 3), (9, 8, 3), (9, 9, 3)]
    assert [photos[index][-1, -1].tolist() for index in range(3)] == [[1, 2, 7], [10, 20, 7], [11, 22, 7]]


def test_a_missing_excluded_photo_is_an_error_and_writes_no_cache(tmp_path):
    write_archives(tmp_path, EXCLUDED[:1])
    with pytest.raises(SystemExit, match=EXCLUDED[1]):
        open_photo_cache(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache" / "photos.json").exists()


def test_batch_depends_only_on_the_generator():
    photos = [np.random.default_rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8) for i in range(6)]
    first, second, other = (draw_batch(photos, 48, 4, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (4, 3, 48, 48)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_batch_is_normalised_and_mixed_from_two_photos():
    photos = [np.full((30, 40, 3), value, np.uint8) for value in (60, 120, 180)]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    plain = draw_batch(photos, 16, 3, 0.0, np.random.default_rng(0)) * std + mean
    assert plain.min() >= -1e-6
    assert plain.max() <= 1 + 1e-6
    assert all(image.std() < 1e-6 for image in plain)  # one colour: a crop has no border
    assert len({round(image.mean().item(), 4) for image in plain}) == 3
    mixed = draw_batch(photos, 16, 3, 1.0, np.random.default_rng(0)) * std + mean
    values = plain.mean((1, 2, 3))
    for index, image in enumerate(mixed):
        own, other = values[index], values[index - 1]
        shares = (image[0] - own) / (other - own)
        assert shares.min() >= -1e-4
        assert shares.max() <= 1 + 1e-4
        assert len(shares.round(decimals=3).unique()) <= 2  # one blend, or a rectangle of the other


@pytest.mark.slow
def test_excluded_photos_are_exactly_those_with_boxes():
    data = os.environ.get("VIZLIB_DATA")
    if not data:
        pytest.skip("VIZLIB_DATA is unset")
    boxed = {entry["file"]: entry for entry in json.loads((Path(data) / "imagenet_val_boxes/boxes.json").read_text())}
    with tarfile.open(Path(data) / "imagenette2-160.tar") as archive:
        names = [name for name in archive.getnames() if "/train/" in name]
    assert {name for name in names if Path(name).name in boxed} == set(EXCLUDED)
