"""What every test starts from: a clean environment, one thread, the same seeds."""

from __future__ import annotations

import logging
import os
import platform
import random
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pytest
import torch
from hypothesis import settings

_REPORTED = ("torch", "transformers", "fastapi", "starlette", "sqlalchemy", "openai", "httpx")

# An operator's settings must not reach any test, collection included.
for _name in [name for name in os.environ if name.startswith("COXSWAIN_")]:
    del os.environ[_name]
torch.set_num_threads(1)

# A shared core makes any deadline a lottery; a failure must come back on the next run.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")


def pytest_report_header(config: pytest.Config) -> str:
    # A machine that runs the tests of a GPU alone has none of the server's packages.
    found = {d.name for d in metadata.distributions()}
    there = [name for name in _REPORTED if name in found]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in there)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return f"coxswain: python {platform.python_version()}, {versions}; {device}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs an accelerator")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo settings a test left in the environment."""
    for name in [name for name in os.environ if name.startswith("COXSWAIN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """Undo handlers and levels that a command set: their stream is the test's own, and closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(autouse=True)
def deterministic() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
