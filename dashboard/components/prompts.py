"""The prompts of a model that reads text: a box with one a line, and the words of the explained one as buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.i18n.translate import translate
from dashboard.services.prompted_name import MAX_PROMPTS, MAX_TOTAL_CHARACTERS
from vizlib import WordRelevance
from vizlib.core.text import format_percent


def build_prompts(model: str, prompts: Sequence[str], target: int, words: WordRelevance | None) -> dict[str, Any]:
    """Return the value of the box of prompts.

    A word is a button that contrasts the prompt with the same prompt without that word, which becomes one more prompt.

    Args:
        model: Name of the model with its prompts.
        prompts: The prompts.
        target: Index of the explained one.
        words: Relevance of its words; `None` where it could not be computed.
    """
    rows = [] if words is None else [build_word(words, index) for index in range(len(words.words))]
    return {
        "model": model,
        "prompts": list(prompts),
        "target": target,
        "words": rows,
        "wordsLabel": translate("prompts.words", prompt=prompts[target]),
        "limit": translate("prompts.limit", count=MAX_PROMPTS, characters=f"{MAX_TOTAL_CHARACTERS:,}"),
    }


def build_word(words: WordRelevance, index: int) -> dict[str, Any]:
    """Return the button of one word of the explained prompt: its share, and the prompt without it."""
    word, share = words.words[index], words.shares[index]
    without = join_words([*words.words[:index], *words.words[index + 1 :]])
    facts = {"word": word, "share": format_percent(share), "without": without}
    hint = translate("prompts.word", **facts) if without else translate("prompts.only-word")
    return {"word": word, "share": share, "hint": hint, "without": without}


def join_words(words: Sequence[str]) -> str:
    """Return words and punctuation marks as one text.

    >>> join_words(["a", "dog", ",", "asleep"])
    'a dog, asleep'
    """
    text = ""
    for word in words:
        text += word if not text or word in (",", ".", ";", ":", "!", "?") else f" {word}"
    return text
