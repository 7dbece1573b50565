"""The Makefile: what it runs exists, and what runs the tests runs them all."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec

import pytest

from .source_tree import ROOT

_MAKEFILE = (ROOT / "Makefile").read_text()
_RUN = sorted(set(re.findall(r"python -m ([\w.]+)", _MAKEFILE)))


@pytest.mark.parametrize("module", _RUN)
def test_what_it_runs_exists(module: str) -> None:
    found = find_spec(module)
    assert found is not None
    if found.submodule_search_locations is not None:
        assert find_spec(f"{module}.__main__") is not None


def test_ci_runs_the_same_command_as_people() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    commands = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert commands[-1] == "exec make --no-print-directory test"


def test_tests_need_no_network_and_one_thread() -> None:
    [recipe] = re.findall(r"^test:.*\n((?:\t.*\n)+)", _MAKEFILE, re.MULTILINE)
    assert "$(ONE_THREAD)" in recipe
    assert "$(OFFLINE)" in recipe
    assert re.search(r"^test: check", _MAKEFILE, re.MULTILINE)


def test_installs_are_pinned() -> None:
    installs = [line for line in _MAKEFILE.splitlines() if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
