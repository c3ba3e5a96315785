"""Hooks of mkdocs: they add the generated pages to the site before it is built."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import sys
from pathlib import Path

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))  # mkdocs loads this file without its folder

import generated_pages  # noqa: E402

SKIPPED = "DOCS_EXECUTE"  # `false` builds the site without the gallery and the output of the tutorials, in seconds


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Keep messages of libraries out of the log, where each would count as a warning, and out of the tutorials."""
    logging.getLogger("httpx").setLevel(logging.ERROR)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # read by the kernels: tqdm, without its widgets
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated from the tables of methods, commands and models, and the pictures."""
    pages: dict[str, str | bytes] = {
        "reference/methods.md": generated_pages.write_methods_page(),
        "reference/metrics.md": generated_pages.write_metrics_page(),
        "reference/rankings.md": generated_pages.write_rankings_page(ROOT / "checkpoints" / "rankings"),
        "reference/command-line.md": generated_pages.write_command_line_page(),
        "reference/models.md": generated_pages.write_models_page(ROOT / "checkpoints"),
    }
    pages |= generated_pages.draw_gallery(draw=os.environ.get(SKIPPED, "true").lower() != "false")
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the content of a tutorial with its links to source files replaced by those to pages of the site.

    mkdocs does this in Markdown only, and warns of a link that leads nowhere; here it raises an error.
    """
    if not page.file.src_uri.endswith(".py"):
        return html

    def replace_link(match: re.Match[str]) -> str:
        path, anchor = match.group(1), match.group(2) or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), path))
        file = files.get_file_from_path(target)
        if file is None:
            raise PluginError(f"{page.file.src_uri} links to {path}, which does not exist")
        return f'href="{file.url_relative_to(page.file)}{anchor}"'

    notebook = Path(page.file.src_uri).with_suffix(".ipynb").name
    html = f'<p><a href="{notebook}" download>Download this tutorial as a notebook</a></p>{html}'
    html = html.replace('<div class="highlight-ipynb', '<div tabindex="0" class="highlight-ipynb')  # it can scroll
    return re.sub(r'href="(?!https?:)([^"#:]+\.(?:md|py))(#[^"]*)?"', replace_link, html)


def on_post_build(config: MkDocsConfig) -> None:
    """Write each tutorial as a notebook beside its page, for the link above it."""
    for source in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        notebook = Path(config.site_dir) / "tutorials" / f"{source.stem}.ipynb"
        jupytext.write(jupytext.read(source), notebook)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Return the page with a name for the dialog of the search, which mkdocs-material leaves out."""
    dialog = 'class="md-search" data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')
