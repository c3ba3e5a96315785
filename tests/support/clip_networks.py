"""Small networks of the CLIP kind with random weights, of open_clip and transformers, and tokenizers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from random_weights import randomise_weights
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

import vizlib
from vizlib.models.clip.word_tokenizer import WordTokenizer

SIDE, PATCH, CONTEXT = 32, 8, 12
SCALE = 1.5  # logarithm of the factor of the cosine
WORDS = (
    "a",
    "an",
    "and",
    ",",
    "at",
    "night",
    "red",
    "blue",
    "green",
    "one",
    "two",
    "seven",
    "dog",
    "cat",
    "photo",
    "of",
)
PROMPTS = ("a red seven", "a blue two, at night", "two dog and a cat", "one")
PREPROCESSING = {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
TEXT: dict[str, Any] = {"width": 32, "heads": 2, "layers": 2}
VISION: dict[str, Any] = {"image_size": SIDE, "patch_size": PATCH, "width": 64, "layers": 3, "head_width": 32}


def freeze(module: Any) -> Any:
    """Return a network with random weights, none of which requires a gradient, in evaluation mode."""
    module = randomise_weights(module).float().eval().requires_grad_(False)
    module.logit_scale.fill_(SCALE)
    return module


def make_word_tokenizer() -> WordTokenizer:
    return WordTokenizer(WORDS, CONTEXT)


def make_open_clip(**vision: Any) -> CLIP:
    """Return a network of open_clip; `vision` changes its image tower."""
    text = CLIPTextCfg(**TEXT, context_length=CONTEXT, vocab_size=make_word_tokenizer().vocab_size, pad_id=0)
    return freeze(CLIP(24, CLIPVisionCfg(**{**VISION, **vision}), text))


def make_open_clip_siglip() -> CustomTextCLIP:
    """Return a network of open_clip with the parts of a SigLIP: attention pooling in timm's ViT, and a bias."""
    vision = CLIPVisionCfg(
        image_size=SIDE, timm_model_name="test_vit", timm_pool="map", timm_proj="none", timm_model_pretrained=False
    )
    text = CLIPTextCfg(
        **TEXT,
        context_length=CONTEXT,
        vocab_size=make_word_tokenizer().vocab_size,
        pool_type="last",
        no_causal_mask=True,
    )
    module: Any = CustomTextCLIP(64, vision, text, init_logit_bias=-3.0)
    module.visual.trunk.set_input_size((SIDE, SIDE))
    return freeze(module)


def make_transformers_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of transformers of whole words."""
    words = ["<pad>", "<unk>", *WORDS, "<s>", "</s>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, vocabulary[word]) for word in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
    )


def make_transformers(kind: str) -> Any:
    """Return a network of transformers, `"clip"` or `"siglip"`."""
    size = len(WORDS) + 4
    shape = {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    vision = {**shape, "image_size": SIDE, "patch_size": PATCH}
    text = {**shape, "vocab_size": size, "max_position_embeddings": CONTEXT}
    text |= {"pad_token_id": 0, "bos_token_id": size - 2, "eos_token_id": size - 1}
    if kind == "clip":
        return freeze(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)))
    return freeze(SiglipModel(SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)))


NETWORKS = {
    "open_clip": lambda: (make_open_clip(), make_word_tokenizer()),
    "open_clip, mean of patches": lambda: (make_open_clip(pool_type="avg"), make_word_tokenizer()),
    "open_clip, attention pooling": lambda: (
        make_open_clip(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2),
        make_word_tokenizer(),
    ),
    "open_clip, ResNet": lambda: (make_open_clip(layers=[1, 1, 1, 1], width=16, image_size=64), make_word_tokenizer()),
    "open_clip, SigLIP": lambda: (make_open_clip_siglip(), make_word_tokenizer()),
    "transformers, CLIP": lambda: (make_transformers("clip"), make_transformers_tokenizer()),
    "transformers, SigLIP": lambda: (make_transformers("siglip"), make_transformers_tokenizer()),
}


def make_clip(name: str) -> vizlib.ClipModel:
    """Return one of `NETWORKS`, wrapped."""
    module, tokenizer = NETWORKS[name]()
    size = 64 if "ResNet" in name else SIDE
    return vizlib.wrap_clip(module, tokenizer, {**PREPROCESSING, "input_size": (3, size, size)})


def save_transformers(kind: str, folder: Path) -> Any:
    """Save a network of transformers and its tokenizer into a folder, and return the network."""
    module = make_transformers(kind)
    module.save_pretrained(folder)
    make_transformers_tokenizer().save_pretrained(folder)
    return module
