"""The options of a server, declared once: `dashboard.command` makes the shell command from them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import vizlib
from dashboard.services.model_catalog import ModelCatalog
from vizlib import VizlibError

HOUR_SECONDS = 3600


def declare_option(default: Any, description: str, *, metavar: str | None = None) -> Any:
    """Return a field of the server's options: its default, and what the help of the shell command says about it."""
    return field(default=default, metadata={"help": description, "metavar": metavar})


@dataclass(frozen=True)
class ServerOptions:
    """How to serve the page; the defaults suit one person on one machine.

    Without a `host` or `port`, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT are read.

    Raises:
        VizlibError: For values that are out of range or exclude each other.
    """

    host: str | None = declare_option("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    port: int | None = declare_option(7860, "Port to listen on; 0 for any free one.")
    browser: bool = declare_option(False, "Open the page in a browser.")
    auth: str | None = declare_option(
        None, "Require a login; @FILE for one user:password per line.", metavar="USER:PASSWORD"
    )
    models: tuple[str, ...] = declare_option(
        (), "Offer only these models, separated by blanks or commas.", metavar="NAME..."
    )
    listed_only: bool = declare_option(
        False, "Load only listed models; the default where other machines can reach the page."
    )
    allow_any_model: bool = declare_option(False, "Also load any hf-hub: repository or path; not for a public server.")
    offline: bool = declare_option(False, "Offer only models that are on this machine.")
    resident: int = declare_option(2, "Maximum number of models in memory.")
    idle_minutes: float = declare_option(30.0, "Time after which an unused model is removed from memory.")
    max_queue: int = declare_option(64, "Maximum number of waiting requests; more are refused.")
    workers: int = declare_option(2, "Number of requests that are computed at the same time.")
    delete_after: int = declare_option(
        HOUR_SECONDS, "Age at which uploads are deleted; at the latest at twice that age.", metavar="SECONDS"
    )
    auto_trust: bool = declare_option(
        True,
        "Measure at once how far each map can be trusted, where only this machine can reach the page; else at a click.",
    )
    mcp: bool = declare_option(False, "Offer the endpoints as MCP tools for language models.")
    log: bool = declare_option(False, "Print one line of JSON for each model run.")
    checkpoints: str | Path | None = declare_option(  # noqa: RUF009 - a dataclass field
        None, "A folder of your weight files, which can then be loaded by name.", metavar="FOLDER"
    )

    def __post_init__(self) -> None:
        for name in ("resident", "max_queue", "workers", "delete_after", "idle_minutes"):
            if getattr(self, name) <= 0:
                raise VizlibError(f"--{name.replace('_', '-')} must be greater than 0, not {getattr(self, name)}")
        if self.offline and self.allow_any_model:
            raise VizlibError("--offline and --allow-any-model exclude each other: any model may need a download")
        if self.listed_only and self.allow_any_model:
            raise VizlibError("--listed-only and --allow-any-model exclude each other")
        if self.mcp and self.auth is not None:
            raise VizlibError("--mcp and --auth exclude each other: tools cannot log in")
        if self.mcp and find_spec("mcp") is None:
            raise VizlibError("--mcp needs an extra that is not installed: pip install 'vizlib[mcp]'")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server, as far as the options and environment show.

        A reverse proxy that is not declared by GRADIO_ROOT_PATH is not noticed.
        """
        host = self.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        shared = self.auth is not None or "SPACE_ID" in os.environ or os.environ.get("GRADIO_ROOT_PATH")
        with contextlib.suppress(ValueError):
            return not shared and (host == "localhost" or ip_address(host).is_loopback)
        return False

    def make_catalog(self, models: Mapping[str, vizlib.Model] = MappingProxyType({})) -> ModelCatalog:
        """Return the catalog of the models to offer with these options, after those that are given by name.

        Raises:
            VizlibError: For a folder or a model that does not exist.
        """
        return ModelCatalog(
            extra={name: partial(models.__getitem__, name) for name in models},
            folder=self.checkpoints,
            only=tuple(dict.fromkeys((*models, *self.models))) if self.models else (),
            any_timm=self.is_local and not (self.models or self.offline or self.listed_only),
            any_model=self.allow_any_model,
            offline=self.offline,
            resident=self.resident,
        )

    def parse_users(self) -> list[tuple[str, str]] | None:
        """Return users and passwords of the option `auth`, or `None` where no login is required.

        Raises:
            VizlibError: For text without a user and a password, or a file that cannot be read.
        """
        if self.auth is None:
            return None
        lines = [self.auth]
        if self.auth.startswith("@"):
            try:
                lines = Path(self.auth[1:]).expanduser().read_text(encoding="utf-8").split("\n")
            except (OSError, ValueError):
                raise VizlibError("the file of users given by --auth cannot be read") from None
        users = [line.strip().partition(":") for line in lines if line.strip()]
        if not users or not all(user and password for user, _, password in users):
            raise VizlibError("--auth takes user:password, or @file with one user:password per line")
        return [(user, password) for user, _, password in users]
