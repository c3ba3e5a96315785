"""Settings of the server's process: threads, memory allocator, downloads and log."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator

import torch
from huggingface_hub import constants as hub

from dashboard.server.options import ServerOptions
from dashboard.services.metrics import LOG

M_ARENA_MAX = -8  # of malloc.h


def configure_process(options: ServerOptions) -> None:
    """Apply the options that concern the whole process: threads, memory allocator, downloads and log."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), _count_cores())))
    with _open_c_library() as library:
        library.mallopt(M_ARENA_MAX, 2)  # else each thread that ran a model keeps the memory it has freed
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        hub.HF_HUB_OFFLINE = True  # read from the environment at import
    if options.log and not LOG.handlers:
        LOG.addHandler(logging.StreamHandler())
        LOG.setLevel(logging.INFO)


@contextlib.contextmanager
def _open_c_library() -> Iterator[ctypes.CDLL]:
    """Yield the C library of this process; functions that another one than glibc lacks are skipped without an error."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        yield ctypes.CDLL(None)


def return_free_memory() -> None:
    """Return freed memory of this process to the system; glibc keeps it in fragments, about as much as is in use."""
    with _open_c_library() as library:
        library.malloc_trim(0)


def _count_cores() -> int:
    """Return the cores this process may use; a Space states its share of the machine in CPU_CORES."""
    cores = os.environ.get("CPU_CORES", "")
    return int(cores) if cores.isdigit() and int(cores) else os.cpu_count() or 1
