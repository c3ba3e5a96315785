"""Names of models whose classes are prompts of a visitor: the name in the catalog, and one prompt a line after it.

Such a name stands for the model wherever a name does: in the selection, in keys of the cache, in requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vizlib.core.errors import TargetError
from vizlib.core.text import Phrase
from vizlib.models.clip.prompts import check_prompts

SEPARATOR = "\n"  # in no name of a model, and in no prompt
MAX_PROMPTS = 100  # of one visitor at a time
MAX_PROMPT_CHARACTERS = 200
MAX_TOTAL_CHARACTERS = 2_000  # so that the page's address stays one that all browsers and servers take


class PromptedName(NamedTuple):
    """The name of a model, and the prompts of a visitor; empty for its own classes."""

    model: str
    prompts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str) -> PromptedName:
        """Return the parts of a name."""
        model, *prompts = name.split(SEPARATOR)
        return cls(model, tuple(prompts))

    def __str__(self) -> str:
        return SEPARATOR.join((self.model, *self.prompts))


def get_catalog_name(name: str) -> str:
    """Return the name of a model in the catalog, without prompts."""
    return name.partition(SEPARATOR)[0]


def check_page_prompts(lines: Iterable[object]) -> tuple[Phrase, ...]:
    """Return prompts that a visitor typed or a link holds, without empty lines and repetitions.

    Args:
        lines: One prompt each.

    Raises:
        TargetError: If there are none, too many or too long ones, or if one holds control characters.
    """
    texts = (" ".join(line.split()) for line in lines if isinstance(line, str))
    different: dict[str, str] = {}
    for text in filter(None, texts):
        different.setdefault(text.lower(), text)
    prompts = list(different.values())
    if len(prompts) > MAX_PROMPTS:
        raise TargetError(f"there are {len(prompts):,} prompts; the page takes at most {MAX_PROMPTS}")
    if long := next((text for text in prompts if len(text) > MAX_PROMPT_CHARACTERS), None):
        raise TargetError(
            f"the prompt {long[:40]!r}… has {len(long):,} characters; the page takes at most {MAX_PROMPT_CHARACTERS}"
        )
    if (total := sum(map(len, prompts))) > MAX_TOTAL_CHARACTERS:
        raise TargetError(
            f"the prompts have {total:,} characters together; the page takes at most {MAX_TOTAL_CHARACTERS:,}"
        )
    return check_prompts(prompts)
