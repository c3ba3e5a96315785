"""The page as a visitor whose browser speaks Korean sees it: no sentence of ours is left in English, on any tab."""

from __future__ import annotations

import re

import pytest

import vizlib
from dashboard.app import TABS
from dashboard.i18n.translate import page_texts

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
SAID = """() => {
  const own = "pre, code, [lang=en], option, footer, script, style, noscript", found = new Set();
  for (const node of document.querySelectorAll("body *")) {
    if (node.closest(own)) continue;
    for (const child of node.childNodes) if (child.nodeType === Node.TEXT_NODE) found.add(child.textContent.trim());
    for (const name of ["aria-label", "aria-roledescription", "title", "alt", "placeholder"]) {
      if (node.hasAttribute(name)) found.add(node.getAttribute(name).trim());
    }
  }
  return [...found];
}"""
ALLOWED = {  # gradio's own, which it does not translate, and a layer's or knob's name
    *("layer", "head"),
    *("Capture from camera", "Paste from clipboard", "Remove Image", "Upload file", "File upload", "Fullscreen"),
    *("More tabs", "Stop Recording", "Download", "processing |"),
}
FINE = r"[가-힣]|^In queue: \d+ of \d+$"  # Korean, or a place in gradio's queue, which it does not translate either
OURS = {text for key, text in page_texts("en").items() if text != page_texts("ko")[key]}
LABELS = {label for name in (RESNET, VIT) for label in vizlib.load(name).labels}


def left_in_english(text: str) -> bool:
    """Whether a text has words of ours: one of the tables, or two words beside each other that are no class."""
    if re.search(FINE, text) or text in ALLOWED or set(text.split(", ")) <= LABELS:
        return False
    return text in OURS or bool(re.search("[A-Za-z]{2,},? [A-Za-z]{2,}", text))


@pytest.mark.parametrize("name", [RESNET, VIT])
def test_no_tab_is_left_in_english(open_checked_session, name):
    session = open_checked_session(f"?m={name}&img=ex:tower", locale="ko-KR")
    for tab in TABS:
        session.open_tab(page_texts("ko")[f"page.tab.{tab.TITLE.lower().replace(' ', '-')}"])
        session.page.wait_for_timeout(1000)
        if tab.TITLE == "Inside":
            session.page.locator("#inside-ablation button").first.click()
            session.settle()
        if tab.TITLE == "Attention":
            session.page.locator("#attention-patches canvas, #receptive-fields canvas").locator(
                "visible=true"
            ).first.click()
            session.settle()
        assert [text for text in session.page.evaluate(SAID) if left_in_english(text)] == []


def test_a_method_of_many_passes_and_a_wrong_photo_are_spoken_of_in_korean(open_checked_session, tmp_path):
    session = open_checked_session(f"?m={VIT}&img=ex:tower&w=rise", locale="ko-KR")
    assert re.search("[가-힣]", session.get_text("#why-progress p"))
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(path)
    session.page.get_by_text("이 파일은 그림이 아니라 글입니다.").first.wait_for()
    session.settle()
    assert [text for text in session.page.evaluate(SAID) if left_in_english(text)] == []


def test_the_same_page_speaks_english_to_everybody_else(open_checked_session):
    session = open_checked_session(f"?m={RESNET}&img=ex:tower", locale="fr-FR")
    assert re.fullmatch(r"Why [A-Za-z ]+\?", session.get_text("#why-caption h2"))
    assert not re.search("[가-힣]", session.get_text("#page"))
