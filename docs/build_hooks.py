"""Hooks of mkdocs: they add the generated pages to the site before it is built."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))  # mkdocs loads this file without its folder

import generated_pages  # noqa: E402

SKIPPED = "DOCS_EXECUTE"  # `false` builds the site without the gallery and the output of the tutorials, in seconds


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let only warnings of mkdocs itself count with `--strict`, not those of libraries that the pages run."""
    logging.getLogger("httpx").setLevel(logging.ERROR)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated from the tables of methods, commands and models, and the pictures."""
    pages: dict[str, str | bytes] = {
        "reference/methods.md": generated_pages.write_methods_page(),
        "reference/command-line.md": generated_pages.write_command_line_page(),
        "reference/models.md": generated_pages.write_models_page(ROOT / "checkpoints"),
    }
    pages |= generated_pages.draw_gallery(draw=os.environ.get(SKIPPED, "true").lower() != "false")
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files
