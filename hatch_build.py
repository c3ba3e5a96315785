"""Build hook of hatchling: a wheel contains the built documentation if `mkdocs build` was run before."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface  # type: ignore[reportMissingImports] - only in builds

MAX_MB = 3  # of the compressed documentation
LEFT_OUT = ("lunr",)  # folders: the search in languages other than English


class DocumentationHook(BuildHookInterface):
    """Add the files of `build/site` to the wheel, without the source maps of its scripts."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to what is included, except in an editable installation, which finds them where they are."""
        site = Path(self.root) / "build" / "site"
        if version == "editable" or not site.is_dir():
            return
        files = [
            path
            for path in site.rglob("*")
            if path.is_file() and path.suffix != ".map" and not set(LEFT_OUT) & set(path.relative_to(site).parts)
        ]
        megabytes = sum(len(zlib.compress(path.read_bytes())) for path in files) / 1e6
        if megabytes > MAX_MB:
            self.app.display_warning(f"the documentation has {megabytes:.1f} MB, more than {MAX_MB}: left out")
            return
        for path in files:
            build_data["force_include"][str(path)] = f"vizlib/_docs/{path.relative_to(site).as_posix()}"
