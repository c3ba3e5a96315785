"""The library's sentences in other languages: every one a visitor may meet is translated, and none is stale."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

import vizlib
from dashboard.components.base import told
from dashboard.i18n.translate import LANGUAGES, from_library, library_texts, use_language
from vizlib.attribution.methods.registry import METHODS
from vizlib.models.loading.training_history import comparison

OTHERS = LANGUAGES[1:]
VIZLIB = Path(vizlib.__file__).parent
SAW = "모델은 사진의 63 %를 보았습니다. 나머지는 잘려 나갔고 어둡게 표시했습니다."
NO_PHOTOS = {  # what a person may upload by mistake
    "text": b"this is text",
    "empty": b"",
    "other": b"\0\1\2\3" * 20,
    "pdf": b"%PDF-1.7 ...",
    "page": b"<html><body>no photo</body></html>",
    "drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "heic": b"\0\0\0\x18ftypheic" + b"\0" * 40,
    "video": b"\0\0\0\x18ftypisom" + b"\0" * 40,
    "damaged": b"\xff\xd8\xff\xe0 cut short",
}


def facts(text: str) -> list[str]:
    return sorted(name for _, name, *_ in Formatter().parse(text) if name is not None)


@cache
def source() -> list[ast.Module]:
    return [ast.parse(path.read_text("utf-8")) for path in sorted(VIZLIB.rglob("*.py"))]


def texts(node: ast.AST) -> Iterator[str]:
    """The texts below a node as patterns, in which anything may stand in the place of a fact."""
    if isinstance(node, ast.JoinedStr):
        parts = [re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in node.values]
        yield "".join(parts)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def notes() -> Iterator[str]:
    """Every note that the library writes: what is appended to notes, added to them, or is them."""
    for module in source():
        for node in ast.walk(module):
            value = None
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "notes.append":
                value = node
            elif isinstance(node, ast.AugAssign | ast.Assign):
                target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
                value = node.value if ast.unparse(target) in ("notes", "note") else None
            if value is not None:
                yield from (text for text in texts(value) if text.endswith((r"\.", ".+")) and len(text) > 9)


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_means_does_not_mean_and_can_be_turned_is_translated(language, name):
    row = METHODS[name]
    with use_language(language):
        for sentence in (row.means, row.means_not, *(knob.help for knob in row.knobs.values())):
            assert re.search("[가-힣]", from_library(sentence)), sentence
    assert from_library(row.means) == row.means


@pytest.mark.parametrize("language", OTHERS)
def test_every_note_the_library_writes_is_translated(language):
    every = sorted(set(notes()))
    assert len(every) > 15
    table = library_texts(language)
    assert [text for text in every if not any(re.fullmatch(text, known, re.DOTALL) for known in table)] == []


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_of_the_table_is_still_said(language):
    said = {text for module in source() for text in texts(module)}
    beside = [path.read_text("utf-8") for path in (VIZLIB.parent / "checkpoints").glob("*.json")]
    beside += [
        json.dumps(comparison()),
        (VIZLIB.parent / "checkpoints" / "training" / "model_cards.py").read_text("utf-8"),
    ]
    stale = []
    for known in library_texts(language):
        bare = max(re.split(r"\{\w+\}", known), key=len).strip()
        if any(re.fullmatch(text, known, re.DOTALL) for text in said if len(text) > 9):
            continue
        if not any(bare.lower() in text.lower() for text in beside) and not known.startswith("the picture "):
            stale.append(known)
    assert stale == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_same_facts_and_one_manner(language):
    for english, other in library_texts(language).items():
        assert set(facts(other)) <= set(facts(english))
        assert not other.endswith(".") or re.search(r"(니다|세요)(\([^)]*\))?\.$", other)


@pytest.mark.parametrize("kind", NO_PHOTOS)
def test_a_file_that_is_no_photo_is_refused_in_the_visitors_language(kind):
    with pytest.raises(vizlib.ImageError) as refused:
        vizlib.open_image(NO_PHOTOS[kind])
    with use_language("ko"):
        said = told(refused.value).message
    assert re.search(r"(니다|세요)\.$", said)
    assert "picture" not in said


@pytest.mark.parametrize(
    ("sentence", "korean"),
    [
        ("Why golf ball and not gas pump?", "왜 gas pump 대신 golf ball인가?"),
        ("Why {label} and not <b>?", "왜 <b> 대신 {label}인가?"),
        ("The model saw 63 % of the photo; the rest was cropped away and is dimmed.", SAW),
        ("Nobody has translated this.", "Nobody has translated this."),
        ("Why " + "and not " * 400 + "x?", "Why " + "and not " * 400 + "x?"),
    ],
)
def test_facts_are_taken_over_as_they_are_and_what_nobody_translated_stays(sentence, korean):
    with use_language("ko"):
        assert from_library(sentence) == korean
