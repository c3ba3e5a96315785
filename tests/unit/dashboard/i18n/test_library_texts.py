"""Translations of the library's texts: complete, with the same facts, and without entries that nothing uses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Formatter

import pytest

import vizlib
from dashboard.components.error_messages import to_gradio_error
from dashboard.i18n.language import LANGUAGES, use_language
from dashboard.i18n.translate import (
    get_library_texts,
    translate_error,
    translate_group,
    translate_method_description,
    translate_note,
    translate_parameter_help,
    translate_stored,
)
from vizlib.attribution.methods.registry import METHODS
from vizlib.core.imagenet_groups import index_groups
from vizlib.core.note_texts import TEXTS
from vizlib.core.text import make_note
from vizlib.models.loading.training_history import read_training_comparison

TRANSLATIONS = LANGUAGES[1:]
CHECKPOINTS = Path(vizlib.__file__).parent.parent / "checkpoints"
SECTIONS = ["notes", "methods", "parameters", "groups", "stored", "stored_with_facts"]
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


def facts(text: str) -> set[str]:
    return {name for _, name, *_ in Formatter().parse(text) if name is not None}


def all_texts(language: str) -> list[str]:
    """Every translated text of all sections."""
    table = get_library_texts(language)
    methods = [text for texts in table["methods"].values() for text in texts.values()]
    return methods + [text for section in SECTIONS if section != "methods" for text in table[section].values()]


def stored_texts() -> list[str]:
    """The texts of the checkpoint files that the page displays."""
    sidecars = [json.loads(path.read_text("utf-8")) for path in sorted(CHECKPOINTS.glob("*.json"))]
    weaknesses = [text for sidecar in sidecars for text in sidecar["weaknesses"]]
    data = [sidecar["accuracy"]["data"] for sidecar in sidecars]
    scores = [sidecar["ood"] for sidecar in sidecars if "ood" in sidecar]
    data += [name for score in scores for name in (score["data"], score["other_photos"]["data"])]
    start_labels = [row["label"] for row in read_training_comparison()["starts"].values()]
    return [*weaknesses, *data, *start_labels, read_training_comparison()["title"], read_training_comparison()["text"]]


def test_english_needs_no_table_and_every_other_language_has_all_sections():
    assert not any(get_library_texts("en").values())
    for language in TRANSLATIONS:
        assert list(get_library_texts(language)) == SECTIONS


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_exactly_the_note_codes_are_translated(language):
    assert sorted(get_library_texts(language)["notes"]) == sorted(TEXTS)


@pytest.mark.parametrize("language", TRANSLATIONS)
@pytest.mark.parametrize("code", sorted(TEXTS))
def test_a_translated_note_has_the_facts_of_the_english_one(language, code):
    template = get_library_texts(language)["notes"][code]
    assert facts(template) <= facts(TEXTS[code])
    note = make_note(code, **{name: f"<{name}>" for name in facts(TEXTS[code])})
    with use_language(language):
        assert translate_note(note) == template.format_map(note.facts)
    assert translate_note(note) == note


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_exactly_the_methods_are_translated(language):
    table = get_library_texts(language)["methods"]
    assert list(table) == list(METHODS)
    for name, texts in table.items():
        assert list(texts) == ["shows", "does_not_show"]
        with use_language(language):
            assert translate_method_description(METHODS[name]) == tuple(texts.values())


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_parameter_has_a_help_text_and_no_help_text_is_unused(language):
    table = dict(get_library_texts(language)["parameters"])
    used = set()
    for method in METHODS.values():
        for name in method.parameters:
            key = f"{method.name}.{name}" if f"{method.name}.{name}" in table else name
            used.add(key)
            with use_language(language):
                assert translate_parameter_help(method, name) == table[key]
    assert used == set(table)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_parameters_with_different_english_help_have_different_translations(language):
    with use_language(language):
        pairs = {
            (name, parameter.help): translate_parameter_help(method, name)
            for method in METHODS.values()
            for name, parameter in method.parameters.items()
        }
        for method in METHODS.values():
            for name, parameter in method.parameters.items():
                assert translate_parameter_help(method, name) == pairs[name, parameter.help]
    assert len(set(pairs.values())) == len(pairs)


def test_english_texts_of_methods_and_parameters_are_the_ones_of_the_registry():
    method = METHODS["grad-cam"]
    assert translate_method_description(method) == (method.shows, method.does_not_show)
    assert translate_parameter_help(method, "layer") == method.parameters["layer"].help


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_group_of_classes_is_translated_and_no_translation_is_unused(language):
    names = {name for groups in index_groups() for name in groups}
    assert set(get_library_texts(language)["groups"]) == names
    with use_language(language):
        assert len({translate_group(name) for name in names} - names) == len(names)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_stored_text_is_translated_and_no_translation_is_unused(language):
    with use_language(language):
        translated = {text: translate_stored(text) for text in stored_texts()}
    assert [text for text, translation in translated.items() if text == translation] == []
    table = get_library_texts(language)
    assert set(table["stored"]) <= set(translated)
    for english, template in table["stored_with_facts"].items():
        assert facts(template) == facts(english)
        start = english.partition("{")[0]
        assert any(text.startswith(start) for text in translated)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_translation_is_korean_and_formal(language):
    for text in all_texts(language):
        assert re.search("[가-힣]", text), text
        assert not text.endswith(".") or re.search(r"(니다|세요)(\([^)]*\))?\.$", text), text


@pytest.mark.parametrize("kind", NO_PHOTOS)
def test_an_unreadable_upload_is_refused_in_the_language_of_the_visitor(kind):
    with pytest.raises(vizlib.ImageError) as refused:
        vizlib.open_image(NO_PHOTOS[kind])
    with use_language("ko"):
        message = to_gradio_error(refused.value).message
    assert re.search(r"(니다|세요)\.$", message)
    assert "photo" not in message


def test_a_plain_string_and_an_error_without_a_note_stay_english():
    with use_language("ko"):
        assert translate_note("Not a note.") == "Not a note."
        assert translate_error(ValueError("no note")) == "no note"
        assert translate_error(ValueError()) == ""
        assert translate_stored("Not in the table.") == "Not in the table."


def test_facts_are_inserted_as_they_are():
    stored = "Of the validation photos of a {class}, 5.5 % are classified as a <b>."
    with use_language("ko"):
        assert translate_stored(stored) == "{class}의 검증 사진 가운데 5.5 %가 <b>(으)로 분류됩니다."
        group = "Of 30 photos of the group dog, 61 % are classified correctly, and 90 % as a class of this group."
        assert translate_stored(group).startswith("‘개’ 그룹의 사진 30장 가운데 61 %가 올바르게, 90 %")
