"""Whether weights are on this machine, or can be fetched: asked first, so that no one waits for a dead network."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

import torch
import torchvision
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache

from vizlib import checkpoints
from vizlib.architectures import in_torchvision
from vizlib.errors import ModelError

PATIENCE = 5.0  # seconds to wait for a server's first sign of life, before a download that would retry for minutes


def in_hub_cache(repository: str, files: Sequence[str], revision: str | None = None) -> bool:
    """Whether one of these files of a hub repository was downloaded before."""
    return any(isinstance(try_to_load_from_cache(repository, file, revision=revision), str) for file in files)


def in_torch_cache(url: str) -> bool:
    """Whether the file at this address was downloaded before, by PyTorch."""
    return os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1]))


def torchvision_weights(name: str) -> torchvision.models.WeightsEnum:
    """The default weights of one of torchvision's classifiers. Raises: ModelError for another name."""
    return torchvision.models.get_model_weights(in_torchvision(name))["DEFAULT"]


def expect(name: str, url: str, cached: bool) -> None:
    """Raises: ModelError, within seconds, where weights are not on this machine and their server cannot be reached."""
    if not cached and ((url == hub.ENDPOINT and hub.HF_HUB_OFFLINE) or not answers(url)):
        raise ModelError(
            f"the weights of {name} are not on this machine, and {url.split('/')[2]} cannot be reached; "
            f"without a network there are {', '.join(checkpoints.bundled()) or 'only files of yours'}"
        )


def answers(url: str) -> bool:
    """Whether a server gives any answer at all, through the proxy if there is one."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the libraries bring certificates of their own
    except (OSError, HTTPException):
        return False
    return True
