"""Which photos the arguments of a shell command name, and the names of the files that are written for each."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from vizlib.attribution.methods.registry import METHODS
from vizlib.core.decoding.file_kinds import PHOTO_SUFFIXES
from vizlib.core.errors import ImageError

FROM_STANDARD_INPUT = "-"


def list_photos(arguments: Sequence[str]) -> list[Path]:
    """Return the photos that the arguments of a command name, each once.

    Args:
        arguments: Files; folders, of which every photo in them and in their folders is meant, in the order of their
            names; patterns such as `photos/**/*.jpg`; and `-` for a list of files or folders on standard input, one a
            line. What exists under a name comes before the pattern that it may be.

    Returns:
        The paths. Whether the files named singly exist and are photos is not checked. Files of a folder are found by
        their suffix; those that `vizlib explain` has written (`NAME.METHOD.png`) are left out.

    Raises:
        ImageError: For a folder without a photo, a pattern that matches no file, or an empty list.
    """
    found: dict[Path, None] = {}
    repeated = 0
    for path in _expand(arguments):
        repeated += path in found
        found[path] = None
    if repeated:
        typer.echo(f"vizlib: {repeated} photos that are named more than once are used once", err=True)
    if not found:
        raise ImageError("the list on standard input is empty, expected the path of a photo on each line")
    return list(found)


def make_stems(paths: Sequence[Path]) -> list[str]:
    """Return the start of the file names that `vizlib explain` writes for each photo: its name, made unique.

    The name has no suffix; where two would be equal, ignoring case, their suffix is kept, then the names of their
    folders are put before it, one after another, and at last a number after it.

    >>> make_stems([Path("a/cat.jpg"), Path("a/dog.jpg")])
    ['cat', 'dog']
    >>> make_stems([Path("a/cat.jpg"), Path("b/cat.png"), Path("c/cat.png")])
    ['cat.jpg', 'b-cat.png', 'c-cat.png']
    >>> make_stems([Path("train/a/1.jpg"), Path("val/a/1.jpg")])
    ['train-a-1.jpg', 'val-a-1.jpg']
    """
    stems = _make_unique([[path.stem, *_list_longer_names(path, "-")] for path in paths])
    taken: set[str] = set()
    for i, stem in enumerate(stems):
        unique, count = stem, 1
        while unique.lower() in taken:
            count += 1
            unique = f"{stem}-{count}"
        taken.add(unique.lower())
        stems[i] = unique
    return stems


def make_names(paths: Sequence[Path]) -> list[str]:
    """Return the name of each photo in the code of a report of `vizlib explain`: its file name, made unique by folders.

    >>> make_names([Path("a/cat.jpg"), Path("b/cat.jpg"), Path("c/dog.jpg")])
    ['a/cat.jpg', 'b/cat.jpg', 'dog.jpg']
    """
    return _make_unique([_list_longer_names(path, "/") for path in paths])


def check_outputs(photos: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Raise an `ImageError` if a file that a command is about to write would replace one of its photos."""
    given = {os.path.normcase(path.resolve()): path for path in photos}
    for output in outputs:
        if photo := given.get(os.path.normcase(output.resolve())):
            raise ImageError(
                f"the photo {photo.name!r} would be replaced by the result of another; choose another folder with --out"
            )


def _expand(arguments: Sequence[str]) -> Iterator[Path]:
    """Yield the photos that the arguments of a command name."""
    for argument in arguments:
        if argument == FROM_STANDARD_INPUT:
            for line in filter(None, (line.rstrip(b"\r\n") for line in sys.stdin.buffer)):
                yield from _expand_name(os.fsdecode(line))
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            matches = [path for path in map(Path, sorted(glob.glob(argument, recursive=True))) if path.is_file()]
            if not matches:
                raise ImageError(f"no file matches the pattern {argument!r}")
            yield from matches
        else:
            yield from _expand_name(argument)


def _expand_name(name: str) -> Iterator[Path]:
    """Yield the photos that a name stands for: those in a folder, or a file, which may not exist."""
    path = Path(name)
    if name.startswith("~") and not path.exists():  # from a list, which no shell has expanded
        path = Path(os.path.expanduser(name))
    if not path.is_dir():
        yield path
        return
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(path))]
    photos = [file for file in files if file.suffix.lower() in PHOTO_SUFFIXES and not _is_output(file)]
    if not photos:
        raise ImageError(f"the folder {path.name or name!r} holds no photo")
    if len(photos) < len(files):
        typer.echo(
            f"vizlib: {len(files) - len(photos)} files in {path.name or name!r} are no photos by their names", err=True
        )
    yield from photos


def _is_hidden(path: Path) -> bool:
    """Return whether a photo, or a folder that it is in, has a hidden name."""
    return any(part.startswith(".") for part in path.parts)


def _is_output(path: Path) -> bool:
    """Return whether a photo has a name as `vizlib explain` writes it."""
    return path.stem.rpartition(".")[2] in METHODS


def _list_longer_names(path: Path, separator: str) -> list[str]:
    """Return the file name of a photo, alone and after the names of one, two, and at last all of its folders."""
    folders = [part for part in path.parts[:-1] if part not in (path.anchor, "..")]
    return [separator.join([*folders[len(folders) - count :], path.name]) for count in range(len(folders) + 1)]


def _make_unique(forms: Sequence[Sequence[str]]) -> list[str]:
    """Return the shortest form of each photo's name that no other photo has, ignoring case; else its longest form.

    Args:
        forms: The names of each photo, from the shortest to the longest.
    """
    levels = [0] * len(forms)
    while True:
        names = [forms_of_one[level] for forms_of_one, level in zip(forms, levels, strict=True)]
        counts = Counter(name.lower() for name in names)
        longer = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and levels[i] + 1 < len(forms[i])]
        if not longer:
            return names
        for i in longer:
            levels[i] += 1
