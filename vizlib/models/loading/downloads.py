"""Check whether weights are cached or their server is reachable, and download them with progress reports."""

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
from vizlib.models.loading import checkpoint_files
from vizlib.models.loading.restoring.architecture_outline import resolve_torchvision_name

ProgressCallback = Callable[[int, int], None]  # called with the number of bytes received and the number expected
BLOCK_BYTES = 1 << 18  # read between two calls of the callback
CONNECT_TIMEOUT_S = 5.0  # the download libraries themselves would retry for minutes


def is_in_hub_cache(repository: str, files: Sequence[str], revision: str | None = None) -> bool:
    """Return whether one of these files of a hub repository is in the cache of `huggingface_hub`."""
    return any(isinstance(try_to_load_from_cache(repository, file, revision=revision), str) for file in files)


def is_in_torch_cache(url: str) -> bool:
    """Return whether the file at a URL is in the cache of `torch.hub`."""
    return os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1]))


def get_torchvision_weights(name: str) -> torchvision.models.WeightsEnum:
    """Return the download entry (URL, transforms, classes) of a torchvision classifier's default weights.

    Raises:
        ModelError: If torchvision has no classifier of this name.
    """
    return torchvision.models.get_model_weights(resolve_torchvision_name(name))["DEFAULT"]


def require_weights(name: str, url: str, cached: bool) -> None:
    """Check that weights are cached or their server is reachable; takes at most `CONNECT_TIMEOUT_S`.

    Args:
        name: Name of the model for the error message.
        url: Address of the server.
        cached: Whether the weights are on this machine.

    Raises:
        ModelError: If neither is the case.
    """
    if not cached and ((url == hub.ENDPOINT and hub.HF_HUB_OFFLINE) or not is_reachable(url)):
        raise ModelError(
            f"the weights of {name} are not on this machine, and {url.split('/')[2]} cannot be reached; "
            f"available offline: {', '.join(checkpoint_files.list_bundled()) or 'your own files'}"
        )


def is_reachable(url: str) -> bool:
    """Return whether a server responds to a HEAD request with any status, through the proxy if one is set."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the download libraries use their own certificates
    except (OSError, HTTPException):
        return False
    return True


def download_from_hub(repository: str, files: Sequence[str], progress: ProgressCallback) -> None:
    """Download the first of these files that a hub repository has into the cache; do nothing if it has none.

    Raises:
        Exception: Whatever `huggingface_hub` raises if the download fails; no partial file remains.
    """
    if not _supports_progress_bar():
        return  # timm downloads the file when it loads the weights, without progress reports
    for file in files:
        try:
            hf_hub_download(repository, file, tqdm_class=_make_progress_bar(progress))
        except EntryNotFoundError:
            continue
        return


def download_to_torch_cache(url: str, progress: ProgressCallback) -> None:
    """Download a file into the cache of `torch.hub` and check it against the hash in its name.

    Raises:
        VizlibError: If the file is incomplete, has another hash or cannot be written; no partial file remains.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    expected_hash, digest, received = torch.hub.HASH_REGEX.search(path.name), hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "torch.hub"})
    with urllib.request.urlopen(request, timeout=12 * CONNECT_TIMEOUT_S) as response, open_atomic(path) as file:
        total = int(response.headers.get("Content-Length") or 0)
        while block := _read_block(response):
            file.write(block)
            digest.update(block)
            received += len(block)
            progress(received, max(total, received))
        if received < total or (expected_hash and not digest.hexdigest().startswith(expected_hash[1])):
            raise ModelError(f"the file is incomplete or changed ({received:,} of {total:,} bytes)")


def _read_block(response: Any) -> bytes:
    """Return the next block of a download; a network error must not look like an error of the file written."""
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, HTTPException) as error:
        raise ModelError(f"the connection broke ({error or type(error).__name__})") from error


def _supports_progress_bar() -> bool:
    """Return whether downloads of this version of `huggingface_hub` take a progress bar class."""
    return "tqdm_class" in inspect.signature(hf_hub_download).parameters


def _make_progress_bar(progress: ProgressCallback) -> type[tqdm]:
    """Return a silent progress bar class that calls `progress` during a download.

    `huggingface_hub` may create several bars for one file and starts again after a broken connection, so the largest
    count so far is reported.
    """
    largest = 0

    class ProgressBar(tqdm):
        """A download's progress bar that prints nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: int | float | None = 1) -> None:
            """Count the bytes downloaded and pass the largest count so far to `progress`."""
            nonlocal largest
            self.n += n or 0
            if self.total:
                largest = min(max(largest, int(self.n)), int(self.total))
                progress(largest, int(self.total))

    return ProgressBar
