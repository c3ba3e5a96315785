"""Eight configurations of open_clip and transformers, with random weights, are read as they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

import vizlib
from vizlib.models.clip.word_tokenizer import WordTokenizer
from vizlib.text.clip_checks import PROMPTS, check_clip

pytestmark = pytest.mark.slow
PHOTO = np.random.default_rng(0).integers(0, 256, (260, 300, 3), dtype=np.uint8)
WORDS = sorted({word for prompt in PROMPTS for word in prompt.split()})
NO_TOKENS = {"MobileCLIP-S1"}  # image towers whose attention is among the places of one stage
CONFIGURATIONS = (
    *("ViT-B-32", "EVA02-B-16", "ViT-B-16-SigLIP", "coca_ViT-B-32", "MobileCLIP-S1", "RN50"),
    *("transformers CLIP", "transformers SigLIP"),
)


def make_network(name: str) -> tuple[Any, Any]:
    """Return a frozen network with random weights, and a tokenizer that needs no download."""
    torch.manual_seed(0)
    if name.startswith("transformers"):
        ids = {"eos_token_id": WordTokenizer(WORDS, 64).end}  # from which CLIP's text tower reads its features
        module: Any = CLIPModel(CLIPConfig(text_config=ids)) if "Sig" not in name else SiglipModel(SiglipConfig())
        length = module.config.text_config.max_position_embeddings
    else:
        module = open_clip.create_model(name, pretrained=None)
        length = module.context_length
    for part_name, part in module.named_modules():
        if part_name.endswith("bn3"):  # zero at first, so that a residual block would pass nothing on
            torch.nn.init.constant_(part.weight, 0.5)
    return module.eval().requires_grad_(False), WordTokenizer(WORDS, length)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration_is_read_as_it_computes(name):
    module, tokenizer = make_network(name)
    clip = vizlib.wrap_clip(module, tokenizer, name=name)
    failed = [check for check in check_clip(clip, PHOTO, PROMPTS) if not check.passed]
    assert failed == []
    model = clip.with_prompts(PROMPTS)
    assert ("attention-relevance" in vizlib.list_methods(model)) == (name not in NO_TOKENS)
    assert vizlib.explain(model, PHOTO, target=1).heat.any()
    assert max(vizlib.explain_words(model, PHOTO, 1).values) > 0
