"""Question marks that lead to the documentation, where the server has a built copy of it."""

from __future__ import annotations

from functools import cache
from html import escape

from dashboard.i18n.translate import translate, translate_in_browser
from vizlib.core.documentation import METHODS_PAGE, USER_INTERFACE_PAGE, find_docs_folder, make_anchor

DOCS_ROUTE = "/docs"


@cache
def has_documentation() -> bool:
    """Return whether the server of this process has the documentation; it is looked for once."""
    return find_docs_folder() is not None


def build_method_help(method: str) -> str:
    """Return a link to the description of a method as safe HTML; empty without the documentation."""
    return _build_help_link(METHODS_PAGE, method, escape(translate("common.help", name=method)))


def build_page_help(section: str, name: str) -> str:
    """Return a link to a section of the description of the page as safe HTML; empty without the documentation.

    Args:
        section: Anchor of the section.
        name: What it describes, in the language of the request.
    """
    return _build_help_link(USER_INTERFACE_PAGE, section, escape(translate("common.help", name=name)))


def build_tab_help(tab: str) -> str:
    """Return a link to the description of a tab as safe HTML; empty without the documentation.

    Its label is replaced by gradio's front end, as the page is built before the language of its visitors is known.
    """
    return _build_help_link(USER_INTERFACE_PAGE, tab, str(translate_in_browser("help")))


def build_page_link(section: str) -> str:
    """Return the address of a section of the description of the page; empty without the documentation."""
    return _build_address(USER_INTERFACE_PAGE, section) if has_documentation() else ""


def _build_address(page: str, section: str) -> str:
    return f"{DOCS_ROUTE.removeprefix('/')}/{page}#{make_anchor(section)}"


def _build_help_link(page: str, section: str, label: str) -> str:
    if not has_documentation():
        return ""
    address = _build_address(page, section)
    described = f'aria-label="{label}" title="{label}"'
    return f'<a class="viz-help" href="{address}" target="_blank" rel="noopener" {described}>?</a>'
