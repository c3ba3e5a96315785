"""What a model whose labels are prompts refers to: the network that makes such models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from vizlib.models.model import Model


@runtime_checkable
class PromptSource(Protocol):
    """A network that reads texts, and makes models whose classes are prompts: `vizlib.models.clip.ClipModel`."""

    @property
    def templates(self) -> tuple[str, ...]:
        """Templates that each prompt is put into."""
        ...

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """Prompts to begin with; empty where there are none."""
        ...

    def with_prompts(self, prompts: Sequence[str]) -> Model:
        """Return a model whose classes are prompts."""
        ...
