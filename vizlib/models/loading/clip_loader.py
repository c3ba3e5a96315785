"""`load_clip` and `wrap_clip`: make a `ClipModel` from a name, a folder, a bundled file or a network of one's own."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from vizlib.core.errors import ModelError, suggest_names
from vizlib.core.text import make_note
from vizlib.models.clip.clip_model import ClipModel
from vizlib.models.clip.prompt_classifier import TransformersImageTower, pick_features
from vizlib.models.clip.prompts import Templates
from vizlib.models.clip.text_tower import TextTower, encode_open_clip, encode_transformers
from vizlib.models.clip.word_tokenizer import WordTokenizer
from vizlib.models.loading import checkpoint_files
from vizlib.models.loading.checkpoint_files import Sidecar, read_checkpoint
from vizlib.models.loading.downloads import is_in_hub_cache, require_weights
from vizlib.models.loading.hub_configs import read_json_object, resolve_preprocessing
from vizlib.models.loading.hub_folders import CONFIG_FILE, HUB_FILES, HUB_PREFIX, LOCAL_PREFIX
from vizlib.models.loading.transformers_networks import silence_loading

OPEN_CLIP_PREFIX = "open_clip/"
OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_TYPES = {"clip": "CLIPModel", "metaclip_2": "MetaClip2Model", "siglip": "SiglipModel"}  # by model type
MAX_FEATURE_ERROR = 1e-4  # of the image tower, against the network's own features
INSTALL = "pip install 'vizlib[clip]'"


def load_clip(
    name: str | os.PathLike[str], *, templates: Templates = None, device: str | torch.device = "cpu"
) -> ClipModel:
    """Load a network that compares images with texts: CLIP, SigLIP and their relatives.

    Args:
        name: One of
            a bundled network, such as "clip-digits" (works offline);
            "open_clip/", an architecture and a tag of open_clip, such as "open_clip/ViT-B-32/laion2b_s34b_b79k";
            "hf-hub:" and a repository of the Hugging Face Hub with a network of open_clip or transformers;
            a folder as open_clip or transformers saves it.
        templates: `"openai"` for the 80 templates that CLIP's authors use on ImageNet, `"simple"` for their seven best,
            a list of texts with `{}` where the prompt is put, or `None` for the prompts as they are.
        device: Device to move the network to.

    Returns:
        The network; `with_prompts` makes an ordinary model of it.

    Raises:
        ModelError: For an unknown name, a package that is not installed, a failed download, or a folder that is
            missing, damaged or holds another kind of network.
        TargetError: If the templates cannot be used.

    Example:
        >>> import vizlib
        >>> vizlib.load_clip("clip-digits")
        <ClipModel clip-digits: CLIP, input 48 × 48>
    """
    text = os.fspath(name)
    bundled = checkpoint_files.list_bundled()
    if text in bundled:
        clip = load_clip_file(bundled[text])
    elif text.startswith(OPEN_CLIP_PREFIX):
        clip = _load_open_clip(text)
    elif text.startswith(HUB_PREFIX):
        clip = _load_from_hub(text)
    elif (folder := Path(text.removeprefix(LOCAL_PREFIX)).expanduser()).is_dir():
        clip = _load_folder(folder)
    else:
        known = [name for name, path in bundled.items() if Sidecar.read_for(path).clip]
        raise ModelError(
            f"there is no CLIP {text!r}; expected {', '.join(known)}, 'open_clip/ARCHITECTURE/TAG', "
            "'hf-hub:ORGANISATION/REPOSITORY', or a folder as open_clip or transformers saves it"
        )
    try:
        clip.module.to(device)
    except (RuntimeError, AssertionError) as error:  # PyTorch raises AssertionError for a device it was built without
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{text} cannot be moved to the device {str(device)!r}: {reason}") from error
    if clip.scale.device != torch.device(device):
        clip = replace(clip, scale=clip.scale.to(device), bias=clip.bias.to(device))
    return clip if templates is None else clip.with_templates(templates)


def wrap_clip(
    model: nn.Module,
    tokenizer: Callable[..., Any],
    preprocess: object | None = None,
    *,
    templates: Templates = None,
    name: str | None = None,
) -> ClipModel:
    """Return a `ClipModel` of a network of your own. The network is not modified.

    Args:
        model: A network of open_clip or transformers (CLIP, SigLIP), or one with the same methods: `visual`,
            `encode_text` and `logit_scale`, or `vision_model`, `get_text_features` and `logit_scale`.
        tokenizer: Tokenizer of open_clip or transformers, or a function from a list of texts to token ids "n length".
        preprocess: Preprocessing in any form that `wrap` takes; by default what the network records.
        templates: As in `load_clip`.
        name: Name of the model; by default that of its class.

    Raises:
        ModelError: If the network is no CLIP that can be read, its image tower returns other features than the network,
            or the preprocessing cannot be read.
        TargetError: If the templates cannot be used.

    Example:
        >>> import open_clip, vizlib
        >>> vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
        >>> network = open_clip.CLIP(16, vision, {"width": 32, "heads": 2, "layers": 1}).eval()
        >>> tokenizer = open_clip.get_tokenizer("ViT-B-32")
        >>> clip = vizlib.wrap_clip(network, tokenizer, open_clip.image_transform(32, is_train=False))
        >>> clip.with_prompts(["a photo of a dog", "a photo of a cat"])
        <Model CLIP: ViT (open_clip), 2 classes, input 32 × 32>
    """
    clip = _wrap(model, tokenizer, preprocess, name or type(model).__name__, is_wrapped=True)
    return clip if templates is None else clip.with_templates(templates)


def load_clip_file(path: Path) -> ClipModel:
    """Load a weight file whose sidecar describes a network of open_clip with a vocabulary of whole words.

    Raises:
        ModelError: If open_clip is not installed, or the file is damaged or of another architecture.
    """
    sidecar, open_clip = Sidecar.read_for(path), _import_open_clip(path.stem)
    try:
        config, words = sidecar.clip["model_cfg"], sidecar.clip["words"]
        tokenizer = WordTokenizer(words, config["text_cfg"]["context_length"])
        module = open_clip.CLIP(**config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the sidecar {path.with_suffix('.json').name} describes no CLIP: {error}") from error
    weights = read_checkpoint(path, expected_sha256=sidecar.sha256)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"the weights of {path.name} do not fit its sidecar") from error
    module = module.float().eval()
    clip = _wrap(module, tokenizer, sidecar.preprocessing, path.stem, is_wrapped=False)
    notes = clip.notes
    if path in checkpoint_files.list_bundled().values():
        notes += (make_note("model.digit-scenes"),)
    return replace(clip, default_prompts=tuple(sidecar.labels or ()), notes=notes)


class _Towers(NamedTuple):
    """The parts of a network that compares images with texts."""

    visual: nn.Module
    encode_text: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
    encode_image: Callable[[Tensor], Tensor]
    max_length: int | None = None


def _wrap(module: nn.Module, tokenizer: Any, preprocess: object | None, name: str, *, is_wrapped: bool) -> ClipModel:
    """Return the `ClipModel` of a network."""
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected an nn.Module, not {type(module).__name__}; load_clip takes names and folders")
    if not callable(tokenizer):
        raise ModelError(f"the tokenizer is a {type(tokenizer).__name__}; expected one of open_clip or transformers")
    towers = _find_towers(module, name)
    preprocessing, notes = resolve_preprocessing(module, preprocess, name)
    scale: Any = module.logit_scale
    bias = getattr(module, "logit_bias", None)
    clip = ClipModel(
        module,
        name,
        towers.visual,
        TextTower(
            module,
            getattr(tokenizer, "tokenizer", tokenizer) if _is_processor(tokenizer) else tokenizer,
            towers.encode_text,
            towers.max_length,
        ),
        preprocessing,
        scale.detach().float().exp().reshape(()),
        scale.new_zeros(()).float() if bias is None else bias.detach().float().reshape(()),
        output_kind="softmax" if bias is None else "sigmoid",
        notes=notes,
        is_wrapped=is_wrapped,
    )
    _check_towers(clip, towers)
    return clip


def _is_processor(tokenizer: Any) -> bool:
    """Return whether a tokenizer is a processor of transformers, which holds one and an image processor."""
    return hasattr(tokenizer, "image_processor") and hasattr(tokenizer, "tokenizer")


def _find_towers(module: Any, name: str) -> _Towers:
    """Return the parts of a network of open_clip or transformers, or of one with the same methods."""
    if isinstance(getattr(module, "logit_scale", None), Tensor):
        if isinstance(getattr(module, "visual", None), nn.Module) and hasattr(module, "encode_text"):
            return _Towers(module.visual, encode_open_clip, lambda images: pick_features(module.encode_image(images)))
        if isinstance(getattr(module, "vision_model", None), nn.Module) and hasattr(module, "get_text_features"):
            projection = getattr(module, "visual_projection", None)

            def encode_image(images: Tensor) -> Tensor:
                """Return the network's own features of images."""
                output = module.get_image_features(images)
                return output if isinstance(output, Tensor) else output.pooler_output

            config = module.config.text_config
            length = config.max_position_embeddings if getattr(module, "logit_bias", None) is not None else None
            return _Towers(
                TransformersImageTower(module.vision_model, projection), encode_transformers, encode_image, length
            )
    raise ModelError(
        f"{name} ({type(module).__name__}) is no CLIP that vizlib reads; expected a network of open_clip, or a "
        "CLIPModel or SiglipModel of transformers, with an image tower, a text tower and a logit_scale"
    )


def _check_towers(clip: ClipModel, towers: _Towers) -> None:
    """Check that the image tower computes the features that the network itself compares with texts.

    Raises:
        ModelError: If it fails, or computes others.
    """
    parameter = next(clip.visual.parameters())
    images = torch.randn(1, 3, *clip.preprocessing.input_size, generator=torch.Generator().manual_seed(0))
    images, modes = images.to(parameter), [part.training for part in clip.module.modules()]
    if any(modes):  # dropout and batch statistics would differ from one pass to the next
        return
    try:
        with torch.no_grad():
            found, expected = pick_features(clip.visual(images)), towers.encode_image(images)
    except Exception as error:  # the network is third-party code and may raise anything
        height, width = clip.preprocessing.input_size
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{clip.name} cannot be run on a {height} × {width} RGB input: {reason}") from error
    cosine = torch.cosine_similarity(found.float(), expected.float(), dim=-1).min().item()
    if not cosine > 1 - MAX_FEATURE_ERROR:
        raise ModelError(f"the image tower of {clip.name} returns other features than its encode_image")


# ---------------------------------------------------------------------------------- by name


def _import_open_clip(name: str) -> Any:
    """Return the package open_clip.

    Raises:
        ModelError: If it is not installed.
    """
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise ModelError(f"{name} is a network of open_clip, which is not installed; {INSTALL}") from error


def _load_open_clip(name: str) -> ClipModel:
    """Load pretrained weights of open_clip, downloaded where they are not cached."""
    open_clip = _import_open_clip(name)
    architecture, _, tag = name.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    if architecture not in open_clip.list_models():
        raise ModelError(f"open_clip has no {architecture!r}; {suggest_names(architecture, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        given = f"no weights {tag!r} of" if tag else "several weights of"
        hint = suggest_names(tag, tags) if tags else "it has none; build it with open_clip and use vizlib.wrap_clip"
        raise ModelError(f"open_clip has {given} {architecture}; {hint}")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    repository = str(config.get("hf_hub") or "").rstrip("/")
    url = hub.ENDPOINT if repository else str(config.get("url"))
    files = [name for name in HUB_FILES if name.startswith("open_clip")]
    require_weights(name, url, bool(repository) and is_in_hub_cache(repository, files))
    return _create_open_clip(open_clip, name, architecture, tag)


def _load_from_hub(name: str) -> ClipModel:
    """Load a repository of the Hugging Face Hub that holds a network of open_clip or transformers."""
    repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    require_weights(name, hub.ENDPOINT, is_in_hub_cache(repository, [OPEN_CLIP_CONFIG, CONFIG_FILE], revision or None))
    try:
        hf_hub_download(repository, OPEN_CLIP_CONFIG, revision=revision or None)
    except Exception:  # there is none: a network of transformers
        return _load_transformers(repository, name, revision or None)
    return _create_open_clip(_import_open_clip(name), name, name, None)


def _load_folder(folder: Path) -> ClipModel:
    """Load a folder as open_clip or transformers saves it."""
    if (folder / OPEN_CLIP_CONFIG).is_file():
        if not any((folder / file).is_file() for file in HUB_FILES):
            raise ModelError(f"the folder {folder} holds no weights; expected one of {', '.join(HUB_FILES)}")
        return _create_open_clip(_import_open_clip(folder.name), folder.name, f"local-dir:{folder}", None)
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"the folder {folder} holds no CLIP; expected {OPEN_CLIP_CONFIG} or {CONFIG_FILE}")
    model_type = read_json_object(folder / CONFIG_FILE).get("model_type")
    if model_type not in TRANSFORMERS_TYPES:
        raise ModelError(
            f"the folder {folder.name} holds a network of the type {model_type!r}, which reads no prompts; expected "
            f"{', '.join(TRANSFORMERS_TYPES)}"
        )
    return _load_transformers(str(folder), folder.name, None)


def _create_open_clip(open_clip: Any, name: str, identifier: str, tag: str | None) -> ClipModel:
    """Return a network that open_clip builds, with its weights and its tokenizer."""
    try:
        with _quiet():
            module = open_clip.create_model(identifier, tag, require_pretrained=True, weights_only=True)
            tokenizer = open_clip.get_tokenizer(identifier)
    except Exception as error:  # open_clip raises anything for a damaged file or a download that fails
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"open_clip cannot load {name}: {reason}") from error
    return _wrap(module.eval(), tokenizer, None, name, is_wrapped=False)


def _load_transformers(source: str, name: str, revision: str | None) -> ClipModel:
    """Return a network of transformers with its tokenizer; code in its repository is not executed."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(f"{name} is a model of transformers, which is not installed; {INSTALL}") from error
    try:
        with _quiet(), silence_loading(transformers):
            config = transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            kind = TRANSFORMERS_TYPES[config.model_type]
            module, report = getattr(transformers, kind).from_pretrained(
                source, revision=revision, output_loading_info=True, use_safetensors=None
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except KeyError as error:
        raise ModelError(
            f"{name} is a network of the type {error.args[0]!r}; expected {', '.join(TRANSFORMERS_TYPES)}"
        ) from error
    except Exception as error:  # the type depends on which file is missing or damaged
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"transformers cannot load {name}: {reason}") from error
    if report["missing_keys"]:
        raise ModelError(f"the weights of {name} lack {sorted(report['missing_keys'])[0]}: they are incomplete")
    return _wrap(module.float().eval(), tokenizer, None, name, is_wrapped=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and log lines of open_clip and transformers while they load."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
