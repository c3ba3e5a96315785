"""Build a classifier of Hugging Face's transformers from the `config.json` and the weights of its folder."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vizlib.core.errors import ModelError

PACKAGE = "transformers"
MAX_NAMES = 3  # how many weights a message names


def is_transformers_config(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is that of a network of transformers."""
    return isinstance(config.get("model_type"), str)


def build_transformers_network(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path
) -> tuple[nn.Module, list[str]]:
    """Return a classifier of transformers with its weights, in evaluation mode and single precision.

    Only classes of transformers itself are built: code in the folder is not executed, and no other file is read.

    Args:
        config: Content of `config.json`.
        weights: The state dict.
        folder: Folder that the network records as its source, so that its image processor is found.

    Returns:
        The network, and the names of weights that it does not use.

    Raises:
        ModelError: If transformers is not installed, has no such classifier, or the weights do not fit.
    """
    name, model_type = folder.name, config["model_type"]
    try:
        transformers: Any = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise ModelError(
            f"{name} is a model of Hugging Face's transformers, which is not installed; pip install {PACKAGE}"
        ) from error
    try:
        settings = transformers.CONFIG_MAPPING[model_type].from_dict(dict(config))
        builder = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(settings)]
    except KeyError as error:
        raise ModelError(
            f"{name} is a model of the type {model_type!r}, of which transformers {transformers.__version__} has no "
            "image classifier; build it with its own code and use vizlib.wrap"
        ) from error
    except Exception as error:  # the type depends on which field of the config is wrong
        raise ModelError(f"the config.json of {name} cannot be read: {_shorten_error(error)}") from error
    builders = builder if isinstance(builder, tuple) else (builder,)  # DeiT has two classifiers
    stated = config.get("architectures") or ()
    builder = next((candidate for candidate in builders if candidate.__name__ in stated), builders[0])
    try:
        with silence_loading(transformers):
            module, report = builder.from_pretrained(
                None, config=settings, state_dict=dict(weights), output_loading_info=True
            )
    except Exception as error:
        raise ModelError(f"the weights of {name} do not fit its config.json: {_shorten_error(error)}") from error
    if missing := sorted(report["missing_keys"]):
        listed = ", ".join(missing[:MAX_NAMES]) + (
            f" (+ {len(missing) - MAX_NAMES})" if len(missing) > MAX_NAMES else ""
        )
        raise ModelError(
            f"the weights of {name} lack {listed} of {builder.__name__}: it was not trained as a classifier, or is "
            "incomplete"
        )
    module.config._name_or_path = str(folder)
    return module.float().eval(), sorted(report["unexpected_keys"])


@contextlib.contextmanager
def silence_loading(transformers: Any) -> Iterator[None]:
    """Turn off the progress bar and the report that transformers prints while it loads weights."""
    logging = transformers.utils.logging
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()


def _shorten_error(error: Exception) -> str:
    """Return the first line of the message of an exception of transformers."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
