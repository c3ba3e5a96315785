"""Whether weights are on this machine, or can be fetched: asked first, so that no one waits for a dead network.

And fetching them while somebody is told how far it is.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import torchvision
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from tqdm import tqdm

from vizlib.core.atomic_files import open_atomic
from vizlib.core.errors import ModelError
from vizlib.models.loading import checkpoint_files as checkpoints
from vizlib.models.loading.architecture_detection import resolve_torchvision_name

ProgressCallback = Callable[[int, int], None]  # told how many bytes have come, and of how many
BLOCK_BYTES = 1 << 18  # bytes between two looks at how far it is
CONNECT_TIMEOUT_S = (
    5.0  # seconds to wait for a server's first sign of life, before a download that would retry for minutes
)


def is_in_hub_cache(repository: str, files: Sequence[str], revision: str | None = None) -> bool:
    """Whether one of these files of a hub repository was downloaded before."""
    return any(isinstance(try_to_load_from_cache(repository, file, revision=revision), str) for file in files)


def is_in_torch_cache(url: str) -> bool:
    """Whether the file at this address was downloaded before, by PyTorch."""
    return os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1]))


def get_torchvision_weights(name: str) -> torchvision.models.WeightsEnum:
    """The default weights of one of torchvision's classifiers. Raises: ModelError for another name."""
    return torchvision.models.get_model_weights(resolve_torchvision_name(name))["DEFAULT"]


def require_weights(name: str, url: str, cached: bool) -> None:
    """Raises: ModelError, within seconds, where weights are not on this machine and their server cannot be reached."""
    if not cached and ((url == hub.ENDPOINT and hub.HF_HUB_OFFLINE) or not is_reachable(url)):
        raise ModelError(
            f"the weights of {name} are not on this machine, and {url.split('/')[2]} cannot be reached; "
            f"without a network there are {', '.join(checkpoints.list_bundled()) or 'only files of yours'}"
        )


def is_reachable(url: str) -> bool:
    """Whether a server gives any answer at all, through the proxy if there is one."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the libraries bring certificates of their own
    except (OSError, HTTPException):
        return False
    return True


def download_from_hub(repository: str, files: Sequence[str], progress: ProgressCallback) -> None:
    """Bring the first of these files that a hub repository has into the hub's cache; none is no mistake.

    Raises: whatever `huggingface_hub` does where the download fails; nothing unfinished stays.
    """
    if not _takes_bars():
        return  # whoever loads the weights fetches them, without a word on the way
    for file in files:
        try:
            hf_hub_download(repository, file, tqdm_class=_told(progress))
        except EntryNotFoundError:
            continue
        return


def download_to_torch_cache(url: str, progress: ProgressCallback) -> None:
    """Bring the file at an address into PyTorch's cache, if the hash in its name is its own.

    Raises: VizlibError where it does not arrive whole or cannot be written; nothing unfinished stays.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    named, digest, come = torch.hub.HASH_REGEX.search(path.name), hashlib.sha256(), 0
    asked = urllib.request.Request(url, headers={"User-Agent": "torch.hub"})
    with urllib.request.urlopen(asked, timeout=12 * CONNECT_TIMEOUT_S) as answer, open_atomic(path) as file:
        total = int(answer.headers.get("Content-Length") or 0)
        while block := _read(answer):
            file.write(block)
            digest.update(block)
            come += len(block)
            progress(come, max(total, come))
        if come < total or (named and not digest.hexdigest().startswith(named[1])):
            raise ModelError(f"the file did not arrive whole ({come:,} of {total:,} bytes)")


def _read(answer: Any) -> bytes:
    """The next block; a line that breaks is no trouble with the file it is written to, which is an OSError too."""
    try:
        return answer.read(BLOCK_BYTES)
    except (OSError, HTTPException) as error:
        raise ModelError(f"the line broke ({error or type(error).__name__})") from error


def _takes_bars() -> bool:
    """Whether the hub's library can be handed a progress bar, which older ones cannot."""
    return "tqdm_class" in inspect.signature(hf_hub_download).parameters


def _told(progress: ProgressCallback) -> type[tqdm]:
    """A progress bar that writes nothing, but tells how far it is.

    The hub's library may have several for one file, and begins anew where a line was cut: what was told stays.
    """
    most = 0

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: int | float | None = 1) -> None:
            nonlocal most
            self.n += n or 0
            if self.total:
                most = min(max(most, int(self.n)), int(self.total))
                progress(most, int(self.total))

    return Bar
