"""Where the built documentation is, and at which anchors it describes methods, tabs and metrics."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
BUNDLED_FOLDER = PACKAGE / "_docs"  # in a wheel that was built after the documentation
CHECKOUT = PACKAGE.parent  # the folder of mkdocs.yml, where the package is used from a checkout
BUILD_FOLDER = CHECKOUT / "build" / "site"  # where mkdocs writes it in a checkout; as `site_dir` in mkdocs.yml
METHODS_PAGE, USER_INTERFACE_PAGE = "reference/methods.html", "reference/page.html"


def find_docs_folder() -> Path | None:
    """Return the folder of the built documentation, or `None` if it was not built."""
    return next((folder for folder in (BUNDLED_FOLDER, BUILD_FOLDER) if (folder / "index.html").is_file()), None)


def make_anchor(name: str) -> str:
    """Return the anchor of a heading: the name in letters, digits and hyphens.

    Example:
        >>> make_anchor("grad-cam++")
        'grad-cam-plus-plus'
    """
    return name.lower().replace("+", "-plus").replace(" ", "-")
