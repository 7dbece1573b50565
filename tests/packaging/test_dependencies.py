"""What is imported is declared, and what is declared is pinned."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.source_tree import ROOT, Module, imports, modules
from tools.constraints import PATH, closure, render

_OWN = {"steering", "server", "coxswain_client", "coxswain_evals"}
# Which extras a package may count on, beside the base dependencies.
_EXTRAS = {
    "steering": ("server",),
    "server": ("server", "adapters", "postgresql", "objects"),
    "coxswain_client": ("clients",),
    "coxswain_evals": ("clients", "evals"),
}
# Not installed with torch's build for the CPU, and imported on CUDA alone.
_BROUGHT = {"triton": "torch"}
# Used by a library that asks for it.
_NOT_IMPORTED = {"accelerate", "jinja2", "python-multipart"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    document: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return document


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@cache
def _providers() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _imported(module: Module) -> set[str]:
    """Distributions a module imports from; names only for type checkers do not count."""
    tops = {i.name.split(".")[0] for i in imports(module) if not i.is_typing}
    foreign = tops - set(sys.stdlib_module_names) - _OWN
    return {canonicalize_name(_BROUGHT.get(top) or _providers()[top][0]) for top in foreign}


@pytest.mark.parametrize("package", sorted(_OWN))
def test_imports_are_declared(package: str, project: dict[str, Any]) -> None:
    optional = project["optional-dependencies"]
    declared = _names(project["dependencies"])
    for extra in _EXTRAS[package]:
        declared |= _names(optional[extra])
    imported = set().union(*(_imported(module) for module in modules(package)))
    assert imported - declared == set()


@pytest.mark.parametrize(
    "extra", ["server", "adapters", "postgresql", "objects", "clients", "evals"]
)
def test_declared_is_used(extra: str, project: dict[str, Any]) -> None:
    imported = set().union(*(_imported(module) for module in modules()))
    assert _names(project["optional-dependencies"][extra]) - imported - _NOT_IMPORTED == set()


def _pins() -> dict[str, str]:
    lines = PATH.read_text().splitlines()[1:]
    return dict(line.split("==") for line in lines)


def test_what_runs_is_what_is_pinned() -> None:
    """`make constraints` writes the file again."""
    installed, pins = closure(), _pins()
    assert {name: v for name, v in installed.items() if v != pins.get(name, v)} == {}


def test_everything_needed_is_pinned() -> None:
    """Save what another build of torch, or another Python, needs beside it."""
    if not metadata.version("torch").endswith("+cpu") or sys.version_info[:2] != (3, 11):
        pytest.skip("pins are written with Python 3.11 and the CPU build of torch")
    assert set(closure()) == set(_pins())


def test_pins_are_written_by_the_command() -> None:
    assert PATH.read_text() == render(_pins())


def test_pins_have_no_local_version() -> None:
    """`torch==2.13.0` takes the CPU build where one is offered, the CUDA build elsewhere."""
    assert "+" not in PATH.read_text()


def test_the_version_is_stated_once(project: dict[str, Any]) -> None:
    assert metadata.version("coxswain") == project["version"]
    for module in modules():
        for node in ast.walk(module.tree):
            assert not (isinstance(node, ast.Constant) and node.value == project["version"])
