"""Sessions of nox, which check a change; all share one environment, as PyTorch is large: `nox --list` names them.

`nox` runs `lint` and `unit`. `nox -R ...` skips the installation where the environment exists already. Arguments after
`--` are given to pytest or mkdocs: `nox -s unit -- -k geometry`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox  # pyright: ignore[reportMissingImports] - it is not installed where pyright runs

nox.needs_version = ">=2025.10.14"
nox.options.sessions = ["lint", "unit"]
nox.options.default_venv_backend = "uv|venv"  # uv links the files of cached wheels, where it is installed

PROGRAMS = "Scripts" if os.name == "nt" else "bin"
SHARED = {"venv_backend": "none", "requires": ["environment"]}  # options of a session that uses `environment`
VARIABLES = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # that there is a newer version
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
}


@nox.session(reuse_venv=True)
def environment(session: nox.Session) -> None:
    """Install vizlib with all that its tests and its documentation need, for the other sessions."""
    # Most modules of the dependencies are never imported here, so they are not compiled to bytecode.
    session.install("--no-compile", "-e", ".[test]", env=VARIABLES)


@nox.session(**SHARED)
def lint(session: nox.Session) -> None:
    """Check format, style, imports between layers and types, and the JavaScript where npm is installed."""
    run_program(session, "ruff", "format", "--check", ".")
    run_program(session, "ruff", "check", ".")
    run_program(session, "lint-imports")
    run_program(session, "pyright")
    if shutil.which("npm") is None:
        session.warn("npm is not installed, so the JavaScript is not checked")
        return
    if not Path("node_modules").is_dir():
        session.run("npm", "ci", "--silent", env=VARIABLES, external=True)
    session.run("npm", "run", "--silent", "lint", env=VARIABLES, external=True)
    session.run("npm", "run", "--silent", "types", env=VARIABLES, external=True)


@nox.session(**SHARED)
def unit(session: nox.Session) -> None:
    """Run the unit tests and the contracts of the repository, without the slow ones."""
    run_program(session, "pytest", "tests/unit", "tests/contracts", *session.posargs)


@nox.session(**SHARED)
def reference(session: nox.Session) -> None:
    """Compare the methods with their papers' formulas and with other libraries, slow tests included."""
    run_program(session, "pytest", "-m", "", "tests/reference", *session.posargs)


@nox.session(**SHARED)
def browser(session: nox.Session) -> None:
    """Test the page in Chromium, slow tests included."""
    run_program(session, "pytest", "-m", "", "tests/browser", *session.posargs)


@nox.session(**SHARED)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    run_program(session, "mkdocs", "build", "--strict", *session.posargs)


@nox.session(name="all", venv_backend="none")
def run_everything(session: nox.Session) -> None:
    """Run all that a clean checkout must pass, in a new environment: lint, types, all tests, the wheel."""
    session.run("bash", ".ci/run", external=True)


def run_program(session: nox.Session, program: str, *arguments: str) -> None:
    """Run a program that is installed in the environment of the session `environment`."""
    folder = (session.env_dir.parent / "environment").resolve()
    path = os.pathsep.join([str(folder / PROGRAMS), os.environ.get("PATH", "")])
    variables = {**VARIABLES, "VIRTUAL_ENV": str(folder), "PATH": path}
    session.run(str(folder / PROGRAMS / program), *arguments, env=variables)
