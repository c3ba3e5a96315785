"""Prompts as they are given: checked, and put into the templates of CLIP's authors."""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from vizlib.core.errors import ModelError, TargetError, suggest_names
from vizlib.core.text import Phrase

MAX_PROMPTS = 10_000  # of one model
MAX_PROMPT_LENGTH = 1_000  # characters; the longest context, 77 tokens, holds about 400
MAX_SHOWN_LENGTH = 40  # characters of a prompt in a message
PLACEHOLDER = "{}"
TEMPLATE_SETS = {  # name -> name in open_clip.zero_shot_metadata
    "openai": "OPENAI_IMAGENET_TEMPLATES",
    "simple": "SIMPLE_IMAGENET_TEMPLATES",
}
Templates = str | Sequence[str] | None


def check_prompts(prompts: Iterable[str], max_prompts: int | None = MAX_PROMPTS) -> tuple[Phrase, ...]:
    """Return prompts as labels, with single spaces between their words.

    Args:
        prompts: One or more texts, all different.
        max_prompts: The largest number of them; `None` for any.

    Raises:
        TargetError: If there are none or too many, or if one is no text, empty, too long, given twice, or holds
            control characters.
    """
    if isinstance(prompts, (str, bytes)):
        raise TargetError(f"prompts are a list of texts, not one text; expected [{_shorten(str(prompts))}]")
    checked: dict[str, Phrase] = {}
    for number, prompt in enumerate(prompts, 1):
        if max_prompts is not None and number > max_prompts:
            raise TargetError(f"there are more than {max_prompts:,} prompts, the most that one model takes; give fewer")
        text = _check_prompt(prompt, number)
        if text.lower() in checked:
            raise TargetError(f"the prompt {_shorten(text)} is given twice; give each once")
        checked[text.lower()] = text
    if not checked:
        raise TargetError("there are no prompts; give at least one text, such as 'a photo of a dog'")
    return tuple(checked.values())


def read_prompts(path: str | PathLike[str]) -> list[str]:
    """Return the prompts of a text file, one a line, without empty lines.

    Raises:
        TargetError: If the file cannot be read as text.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise TargetError(f"the file of prompts {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TargetError(f"the file of prompts {path} is not text in UTF-8; expected one prompt a line") from error
    return [line for line in lines if line.strip()]


def read_templates(templates: Templates) -> tuple[str, ...]:
    """Return templates, each with `{}` in the place of the prompt; a single `{}` for none.

    Args:
        templates: `"openai"` for the 80 templates that the authors of CLIP use on ImageNet, `"simple"` for the seven
            that they found sufficient, a list of templates, or `None`.

    Raises:
        TargetError: For an unknown name, or a template without exactly one placeholder.
        ModelError: For a name where open_clip, which holds these lists, is not installed.

    References:
        Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, section 3.1.4,
        arXiv:2103.00020.
    """
    if templates is None:
        return (PLACEHOLDER,)
    if isinstance(templates, str) and PLACEHOLDER not in templates:
        if templates not in TEMPLATE_SETS:
            raise TargetError(f"there are no templates {templates!r}; {suggest_names(templates, TEMPLATE_SETS)}")
        try:
            lists = importlib.import_module("open_clip.zero_shot_metadata")
        except ImportError as error:
            raise ModelError(
                f"the templates {templates!r} are those of open_clip; pip install 'vizlib[clip]'"
            ) from error
        return tuple(template(PLACEHOLDER) for template in getattr(lists, TEMPLATE_SETS[templates]))
    listed = [templates] if isinstance(templates, str) else list(templates)
    wrong = [template for template in listed if not isinstance(template, str) or template.count(PLACEHOLDER) != 1]
    if wrong or not listed:
        given = _shorten(str(wrong[0])) if wrong else "an empty list"
        raise TargetError(f"a template holds {{}} once, where the prompt is put, but {given} was given")
    return tuple(listed)


def _check_prompt(prompt: object, number: int) -> Phrase:
    """Return one prompt with single spaces between its words."""
    if not isinstance(prompt, str):
        raise TargetError(f"prompt {number} is a {type(prompt).__name__}; expected a text")
    text = " ".join(prompt.split())
    if not text:
        raise TargetError(f"prompt {number} is empty; expected a text such as 'a photo of a dog'")
    if len(text) > MAX_PROMPT_LENGTH:
        raise TargetError(
            f"prompt {number} has {len(text):,} characters; expected at most {MAX_PROMPT_LENGTH:,}, more than any CLIP "
            "reads"
        )
    if control := next((letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs")), None):
        raise TargetError(f"prompt {number} holds the control character U+{ord(control):04X}; remove it")
    return Phrase(text)


def _shorten(text: str) -> str:
    """Return a text in quotes for a message, shortened."""
    return repr(text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…")
