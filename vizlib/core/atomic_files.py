"""Write a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from vizlib.core.errors import VizlibError


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes its name once it is whole: whatever ends the work, none is ever cut short.

    Raises: VizlibError where the folder is not there or may not be written to, or the disk is full.
    """
    unfinished = path.with_name(f".{uuid4().hex}.part")  # in the same folder, or it could not be renamed
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise VizlibError(f"{path.name} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the folder itself is in the way, which was said above
            unfinished.unlink(missing_ok=True)
