"""Tokenizer of a small vocabulary of whole words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from vizlib.core.errors import TargetError

PADDING, START = 0, 1  # token ids; the words follow, and the end has the highest, as open_clip pools the highest id
_WORD = re.compile(r"\w+|[^\w\s]")


class WordTokenizer:
    """Turns texts into the token ids of a vocabulary of whole words.

    A text becomes the start token, its words in lower case, the end token and padding, as open_clip's text towers
    expect it: the end token has the highest id, because they pool the place of the highest id.

    Args:
        words: The vocabulary; a punctuation mark counts as a word.
        context_length: Number of tokens of each text, with start and end.

    Example:
        >>> tokenizer = WordTokenizer(("a", "red", "seven"), context_length=6)
        >>> tokenizer("A red seven").tolist()
        [[1, 2, 3, 4, 5, 0]]
    """

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        self.words, self.context_length = tuple(words), context_length
        self._ids = {word: index for index, word in enumerate(self.words, START + 1)}

    @property
    def end(self) -> int:
        """Id of the end token, the highest."""
        return START + 1 + len(self.words)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, with padding, start and end."""
        return self.end + 1

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Return the token ids "texts context_length" of texts.

        Raises:
            TargetError: If a text has a word outside the vocabulary, or too many words.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = torch.full((len(texts), self.context_length), PADDING)
        for row, text in zip(tokens, texts, strict=True):
            words = split_words(text)
            if unknown := [word for word in words if word not in self._ids]:
                raise TargetError(
                    f"this model knows {len(self.words)} words, and {unknown[0][:40]!r} is not among them; "
                    f"it knows {', '.join(word for word in self.words if word.isalpha())}"
                )
            if len(words) > self.context_length - 2:
                raise TargetError(
                    f"a prompt of {len(words)} words is longer than the {self.context_length - 2} that this model reads"
                )
            row[: len(words) + 2] = torch.tensor([START, *(self._ids[word] for word in words), self.end])
        return tokens


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.lower())
