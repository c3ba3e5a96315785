"""The text tower of a CLIP: from texts to features, and where the words of a text are among its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vizlib.core.errors import ModelError, TargetError
from vizlib.models.clip.word_tokenizer import WordTokenizer, split_words

EMBEDDING_NAMES = ("token_embedding", "word_embeddings", "embed_tokens")  # last parts of the names of token embeddings
Tokens = Mapping[str, Tensor]  # arguments of the tower by name; `IDS` is among them
IDS = "input_ids"


class WordPlace(NamedTuple):
    """A word of a text, and its tokens from `start` to before `stop`."""

    word: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class TextTower:
    """The text tower of a network, with its tokenizer.

    Attributes:
        module: The network that holds it.
        tokenizer: From a list of texts to token ids, as open_clip and transformers have them.
        encode: From the network and tokens to features "n width".
        max_length: Number of tokens of a text where a tokenizer of transformers must be told; `None` to pad to the
            longest text.
    """

    module: nn.Module
    tokenizer: Any
    encode: Callable[[nn.Module, Tokens], Tensor]
    max_length: int | None = None

    @property
    def embedding(self) -> str:
        """Name of the layer that embeds the tokens.

        Raises:
            ModelError: If there is none under a usual name.
        """
        for name, part in self.module.named_modules():
            if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in EMBEDDING_NAMES:
                return name
        raise ModelError(f"{type(self.module).__name__} has no token embedding; expected {', '.join(EMBEDDING_NAMES)}")

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of texts, on the device of the network.

        Raises:
            TargetError: If the tokenizer refuses a text.
        """
        device = next(self.module.parameters()).device
        try:
            found = self.tokenizer(list(texts), **self._make_options())
        except TargetError:
            raise
        except Exception as error:  # the tokenizer is third-party code and may raise anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TargetError(f"the tokenizer cannot read this prompt: {reason}") from error
        if isinstance(found, Tensor):
            return {IDS: found.to(device)}
        # SigLIP was trained without a mask, so that it reads its padding; its tokenizers of version 2 return one.
        names = (IDS,) if self.max_length is not None else (IDS, "attention_mask")
        return {name: found[name].to(device) for name in names if name in found}

    def compute_features(self, texts: Sequence[str]) -> Float[Tensor, "n width"]:
        """Return the features of texts, each of length 1."""
        return F.normalize(self.encode(self.module, self.tokenize(texts)).float(), dim=-1)

    def is_truncated(self, text: str) -> bool:
        """Return whether the tower reads only a beginning of a text."""
        words = text.split()
        if len(words) < 2:
            return False
        ids = self._get_ids([text, " ".join(words[:-1])])
        return ids[0] == ids[1]

    def locate_words(self, text: str) -> list[WordPlace]:
        """Return the words of a text, those that are read, with the places of their tokens.

        The place of a word ends where the tokens of the text begin to differ from those of its words up to there.
        """
        if isinstance(self.tokenizer, WordTokenizer):  # one token a word after the start token
            return [WordPlace(word, i, i + 1) for i, word in enumerate(split_words(text), 1)]
        words = text.split()
        beginnings = [" ".join(words[:count]) for count in range(len(words))]
        whole, *shorter = self._get_ids([text, *beginnings, f"{text} {words[-1] if words else 'a'}"])
        stops = [_count_equal(whole, ids) for ids in shorter]
        places = zip(words, stops[:-1], stops[1:], strict=True)
        return [WordPlace(word, start, stop) for word, start, stop in places if stop > start]

    def _get_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, of equal lengths."""
        return self.tokenize(texts)[IDS].tolist()

    def _make_options(self) -> dict[str, Any]:
        """Return the arguments of a tokenizer of transformers; open_clip's takes none."""
        if not hasattr(self.tokenizer, "pad_token"):
            return {}
        padding = {"padding": True} if self.max_length is None else {"padding": "max_length"}
        return {**padding, "truncation": True, "return_tensors": "pt", "max_length": self.max_length}


def encode_open_clip(module: Any, tokens: Tokens) -> Tensor:
    """Return the features of texts of a network of open_clip, or of one with its methods."""
    return module.encode_text(tokens[IDS])


def encode_transformers(module: Any, tokens: Tokens) -> Tensor:
    """Return the features of texts of a CLIP of transformers, which returns them as a tensor or in an object."""
    known = inspect.signature(module.get_text_features).parameters
    output = module.get_text_features(**{name: value for name, value in tokens.items() if name in known})
    return output if isinstance(output, Tensor) else output.pooler_output


def _count_equal(ids: Sequence[int], others: Sequence[int]) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    count = 0
    for one, other in zip(ids, others, strict=True):
        if one != other:
            break
        count += 1
    return count
