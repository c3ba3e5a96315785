"""The shell command `vizlib serve`, which the dashboard declares."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

# By name, as no module of the library imports the dashboard. The module that declares the command imports no gradio.
serve_command: Callable[..., None] = import_module("dashboard.command").serve_command
