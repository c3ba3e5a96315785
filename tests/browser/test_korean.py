"""The page for a Korean browser: no tab has an English text of the dashboard."""

from __future__ import annotations

import re

import pytest

import vizlib
from dashboard.app import TABS
from dashboard.i18n.translate import get_page_texts

pytestmark = pytest.mark.slow
RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
TEXTS = """() => {
  const own = "pre, code, [lang=en], option, footer, script, style, noscript", texts = new Set();
  for (const node of document.querySelectorAll("body *")) {
    if (node.closest(own)) continue;
    for (const child of node.childNodes) if (child.nodeType === Node.TEXT_NODE) texts.add(child.textContent.trim());
    for (const name of ["aria-label", "aria-roledescription", "title", "alt", "placeholder"]) {
      if (node.hasAttribute(name)) texts.add(node.getAttribute(name).trim());
    }
  }
  return [...texts];
}"""
CONTENT = {  # by tab, a part that is drawn last
    "Why": "#why-methods button",
    "Attention": "#attention-patches canvas, #receptive-fields canvas",
    "Inside": "#inside-ablation button",
    "Compare": "#compare-maps canvas",
    "Learn": "#learn canvas",
    "Model": "#model-card .viz-card h2",
    "Use in code": "#code-lines pre",
}
ALLOWED = {  # untranslated texts of gradio, and names of parameters
    *("layer", "head"),
    *("Capture from camera", "Paste from clipboard", "Remove Image", "Upload file", "File upload", "Fullscreen"),
    *("More tabs", "Stop Recording", "Download", "processing |"),
}
TRANSLATED = (
    r"[가-힣]|^In queue: \d+ of \d+$"  # Korean, or a place in gradio's queue, which it does not translate either
)
ENGLISH = {text for key, text in get_page_texts("en").items() if text != get_page_texts("ko")[key]}
LABELS = {label for name in (RESNET, VIT) for label in vizlib.load(name).labels}


def is_untranslated(text: str) -> bool:
    """Return whether a text is an English one of the tables, or has two adjacent English words that are no class."""
    if re.search(TRANSLATED, text) or text in ALLOWED or set(text.split(", ")) <= LABELS:
        return False
    return text in ENGLISH or bool(re.search("[A-Za-z]{2,},? [A-Za-z]{2,}", text))


@pytest.mark.parametrize("name", [RESNET, VIT])
def test_korean_page_has_no_english_text(open_checked_session, name):
    session = open_checked_session(f"?m={name}&img=ex:tower", locale="ko-KR")
    for tab in TABS:
        session.open_tab(get_page_texts("ko")[f"page.tab.{tab.TITLE.lower().replace(' ', '-')}"])
        session.page.locator(CONTENT[tab.TITLE]).locator("visible=true").first.wait_for()
        if tab.TITLE == "Inside":
            session.page.locator("#inside-ablation button").first.click()
            session.settle()
        if tab.TITLE == "Attention":
            session.page.locator("#attention-patches canvas, #receptive-fields canvas").locator(
                "visible=true"
            ).first.click()
            session.settle()
        assert [text for text in session.page.evaluate(TEXTS) if is_untranslated(text)] == []


def test_progress_and_error_messages_are_korean(open_checked_session, tmp_path):
    session = open_checked_session(f"?m={VIT}&img=ex:tower&w=rise", locale="ko-KR")
    assert re.search("[가-힣]", session.get_text("#why-progress p"))
    path = tmp_path / "notes.jpg"
    path.write_text("this is text")
    session.page.locator("#photo button[aria-label='Remove Image']").click()
    session.settle()
    session.upload(path)
    session.page.get_by_text("이 파일은 그림이 아니라 글입니다.").first.wait_for()
    session.settle()
    assert [text for text in session.page.evaluate(TEXTS) if is_untranslated(text)] == []


def test_page_is_english_for_other_languages(open_checked_session):
    session = open_checked_session(f"?m={RESNET}&img=ex:tower", locale="fr-FR")
    assert re.fullmatch(r"Why [A-Za-z ]+\?", session.get_text("#why-caption h2"))
    assert not re.search("[가-힣]", session.get_text("#page"))
