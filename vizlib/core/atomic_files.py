"""Write a file completely or not at all."""

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
    """Open a file for writing that appears under `path` only when the `with` block has ended without an error.

    The data goes to a temporary file in the same folder, which is then renamed.

    Args:
        path: The file to write; an existing file is replaced.

    Yields:
        The temporary file, opened in binary mode.

    Raises:
        VizlibError: If the folder does not exist or cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{uuid4().hex}.part")  # in the same folder, as renaming works on one file system
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise VizlibError(f"{path.name} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the folder may not exist, which is reported above
            temporary.unlink(missing_ok=True)
