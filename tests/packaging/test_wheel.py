"""The built wheel: everything is in it, and it serves from a clean environment."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.source_tree import ROOT, modules
from tools.local_server import local_server

from .clean_environment import make_environment

pytestmark = pytest.mark.slow

_TYPED = ("coxswain_client/py.typed", "coxswain_evals/py.typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture(scope="module")
def address(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_server(tmp_path_factory.mktemp("server"), python=str(python)) as found:
        yield found


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_is_in_it(wheel: Path) -> None:
    sources = {
        m.path.relative_to(ROOT / "clients" / "python" if m.name.startswith("coxswain_") else ROOT)
        for m in modules()
    }
    assert {str(path) for path in sources} <= _names(wheel)


def test_every_file_beside_the_modules_is_in_it(wheel: Path) -> None:
    """The checkpoint, its template, demo directions and profiles, migrations, type markers."""
    names = _names(wheel)
    beside = {
        str(path.relative_to(ROOT))
        for package in ("steering", "server")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert beside <= names
    assert {"server/embedded/checkpoint/model.safetensors", *_TYPED} <= names


def test_nothing_else_is_in_it(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in _names(wheel)}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"steering", "server", "coxswain_client", "coxswain_evals"}


def test_what_is_installed_fits_together(python: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    listed = [sys.executable, "-m", "pip", "--python", python, "list", "--format", "json"]
    names = {d["name"] for d in json.loads(subprocess.check_output(listed))}
    assert "coxswain" in names
    assert "pytest" not in names


def test_it_serves_a_chat(address: str, python: Path) -> None:
    body = {
        "model": "coxswain-chat",
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 8,
    }
    answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    coxctl = [python.with_name("coxctl"), "--base-url", address]
    told = subprocess.run([*coxctl, "chat", "Hello!"], capture_output=True, text=True, check=True)
    assert told.stdout.strip()


def test_without_a_key_it_opens_no_door(python: Path, tmp_path: Path) -> None:
    """The compose file binds to every address, so a key must be made first."""
    coxswain = python.with_name("coxswain")
    environment = {"COXSWAIN_DATA_DIR": str(tmp_path), "COXSWAIN_HOST": "0.0.0.0"}
    done = subprocess.run(
        [coxswain, "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "coxswain keys create" in done.stderr
    key = subprocess.run(
        [coxswain, "keys", "create", "--name", "prometheus", "--scope", "read"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert key.stdout.startswith("sk-cox-")
    assert len(key.stdout.split()) == 1, "the output is the file of a secret"
