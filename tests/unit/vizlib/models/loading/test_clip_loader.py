"""Networks that read prompts are loaded from folders of both libraries; what cannot be loaded is one sentence."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from clip_networks import (
    PREPROCESSING,
    PROMPTS,
    TEXT,
    VISION,
    freeze,
    make_open_clip,
    make_transformers_tokenizer,
    make_word_tokenizer,
    save_transformers,
)
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import nn

import vizlib
from vizlib import ModelError
from vizlib.models.loading import clip_loader

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def save_open_clip(folder) -> CLIP:
    """Save a network as open_clip's `push_to_hf_hub` does."""
    config = {
        "embed_dim": 24,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "context_length": 16, "vocab_size": 49408},
    }
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    module: Any = freeze(CLIP(**json.loads(text)["model_cfg"]))
    weights = {name: weight.contiguous() for name, weight in module.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return module


def test_folder_of_open_clip_has_its_tokenizer_and_preprocessing(tmp_path):
    module = save_open_clip(tmp_path)
    clip = vizlib.load_clip(tmp_path)
    assert clip.name == tmp_path.name
    assert (clip.preprocessing.mean, clip.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert clip.notes == ()
    model = clip.with_prompts(["a photo of a dog", "un chat noir"])
    image = model.tensor(vizlib.open_image(PHOTO))
    tokens = importlib.import_module("open_clip").SimpleTokenizer(context_length=16)(list(model.labels))
    expected = module.get_logits(image, tokens)[0]
    torch.testing.assert_close(model.logits(image), expected, atol=1e-5, rtol=1e-5)
    assert [getattr(note, "code", "") for note in clip.with_prompts(["dog " * 20, "cat"]).notes] == [
        "prompts.truncated"
    ]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_folder_of_transformers_has_the_logits_of_its_forward(kind, tmp_path, capfd):
    module = save_transformers(kind, tmp_path)
    clip = vizlib.load_clip(tmp_path)
    assert clip.output_kind == ("sigmoid" if kind == "siglip" else "softmax")
    assert [note.code for note in clip.notes] == ["model.assumed-processor"]
    assert "Loading" not in capfd.readouterr().err.rsplit("shards", 1)[-1]
    model = clip.with_prompts(PROMPTS)
    image = model.tensor(vizlib.open_image(PHOTO))
    padding: dict[str, Any] = {"padding": "max_length", "max_length": 12} if kind == "siglip" else {"padding": True}
    tokens = make_transformers_tokenizer()(list(PROMPTS), return_tensors="pt", **padding)
    names = ("input_ids",) if kind == "siglip" else ("input_ids", "attention_mask")
    expected = module(pixel_values=image, **{name: tokens[name] for name in names}).logits_per_image
    torch.testing.assert_close(model.logits(image), expected, atol=1e-4, rtol=1e-4)


def test_repository_of_open_clip_is_loaded_from_the_cache(tmp_path, monkeypatch):
    """The file system stands for the hub: the real code of open_clip runs."""
    module = save_open_clip(tmp_path)
    from open_clip import factory

    def find(model_id, filename=None, **_):
        return str(tmp_path / (filename or "open_clip_model.safetensors"))

    for owner, name in (
        (factory, "download_pretrained_from_hf"),
        (clip_loader, "hf_hub_download"),
    ):
        monkeypatch.setattr(owner, name, find)
    monkeypatch.setattr(clip_loader, "is_in_hub_cache", lambda *args: True)
    clip = vizlib.load_clip("hf-hub:someone/some-clip")
    assert clip.name == "hf-hub:someone/some-clip"
    assert torch.equal(clip.module.state_dict()["logit_scale"], module.logit_scale)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "there is no CLIP 'nothing'; expected "),
        ("open_clip/ViT-B-33/laion2b", "open_clip has no 'ViT-B-33'"),
        ("open_clip/ViT-B-32", "open_clip has several weights of ViT-B-32; there are openai"),
        ("open_clip/ViT-B-32/laion2b_s34b", "did you mean laion2b_s34b_b79k"),
    ],
)
def test_unknown_names_are_one_sentence(name, message):
    with pytest.raises(ModelError, match=message):
        vizlib.load_clip(name)


@pytest.mark.parametrize("name", ["open_clip/ViT-B-32/laion2b_s34b_b79k", "hf-hub:laion/CLIP-ViT-B-32"])
def test_weights_that_cannot_be_downloaded_are_one_sentence(name, monkeypatch):
    monkeypatch.setattr("vizlib.models.loading.downloads.is_reachable", lambda url: False)
    with pytest.raises(ModelError, match=f"the weights of {name} are not on this machine, and huggingface"):
        vizlib.load_clip(name)


def test_damaged_folders_are_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"holds no CLIP; expected open_clip_config\.json or config\.json"):
        vizlib.load_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with pytest.raises(ModelError, match="a network of the type 'vit', which reads no prompts; expected clip"):
        vizlib.load_clip(tmp_path)
    save_open_clip(tmp_path)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="open_clip cannot load"):
        vizlib.load_clip(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no weights; expected one of model\.safetensors"):
        vizlib.load_clip(tmp_path)


def test_missing_packages_are_one_sentence(tmp_path, monkeypatch):
    save_transformers("clip", tmp_path)

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(clip_loader.importlib, "import_module", refuse)
    with pytest.raises(ModelError, match=r"is a network of open_clip, which is not installed; pip install 'vizlib\["):
        vizlib.load_clip("open_clip/ViT-B-32/openai")
    with pytest.raises(
        ModelError, match=r"^clip-digits is a network of open_clip, which is not installed; pip install"
    ):
        vizlib.load("clip-digits")
    with pytest.raises(ModelError, match="is a model of transformers, which is not installed"):
        vizlib.load_clip(tmp_path)


def test_what_is_no_clip_is_refused():
    tokenizer = make_word_tokenizer()
    with pytest.raises(ModelError, match=r"Linear \(Linear\) is no CLIP that vizlib reads; expected a network of open"):
        vizlib.wrap_clip(nn.Linear(2, 2), tokenizer)
    with pytest.raises(ModelError, match=r"expected an nn\.Module, not str"):
        vizlib.wrap_clip("ViT-B-32", tokenizer)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="the tokenizer is a str"):
        vizlib.wrap_clip(make_open_clip(), "tokenizer")  # pyright: ignore[reportArgumentType]

    class Other(CLIP):
        def encode_image(self, image, normalize=False):
            return super().encode_image(image).flip(-1)

    module = make_open_clip()
    module.__class__ = Other
    with pytest.raises(ModelError, match="the image tower of Other returns other features than its encode_image"):
        vizlib.wrap_clip(module, tokenizer, PREPROCESSING)
    with pytest.raises(ModelError, match="cannot be run on a 64 × 64 RGB input"):
        vizlib.wrap_clip(make_open_clip(), tokenizer, {"input_size": (3, 64, 64)})
