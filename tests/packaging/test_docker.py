"""The Dockerfile, as far as it can be tested without a Docker engine."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.source_tree import ROOT

_DOCKERFILE = ROOT / "Dockerfile"


def _instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, with continued lines joined and comments left out."""
    lines = _DOCKERFILE.read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0].upper(), line.partition(" ")[2].strip()) for line in joined if line]


def _arguments(name: str) -> list[str]:
    return [arguments for instruction, arguments in _instructions() if instruction == name]


def _copied() -> list[str]:
    """Sources of COPY that come from the build context."""
    local = [a.split() for a in _arguments("COPY") if "--from=" not in a]
    return [source for words in local for source in words[:-1]]


def test_the_linter_has_no_complaint() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [linter, "--no-color", _DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_copied_source_exists_and_reaches_the_engine() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert rules[0] == "*", "what is not named stays out of the image"
    assert _copied()
    for source in _copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_the_build_sees_what_the_wheel_needs() -> None:
    assert {"pyproject.toml", "README.md", "LICENSE", "steering", "server", "clients"} <= set(
        _copied()
    )


def test_the_server_does_not_run_as_root() -> None:
    user = _arguments("USER")[-1]
    assert user.split(":")[0].isdecimal()
    assert int(user.split(":")[0]) >= 10000


def test_data_and_models_are_volumes() -> None:
    assert _arguments("VOLUME") == ['["/data", "/models"]']
    assert any("COXSWAIN_DATA_DIR=/data" in a for a in _arguments("ENV"))


def test_health_is_readiness() -> None:
    [check] = _arguments("HEALTHCHECK")
    assert "/health/ready" in check


def test_the_image_itself_opens_nothing() -> None:
    assert _arguments("CMD") == ['["coxswain", "serve"]']
    assert "COXSWAIN_HOST" not in _DOCKERFILE.read_text()


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_the_last_stage_exists_for_each_accelerator(accelerator: str) -> None:
    stages = _arguments("FROM")
    assert stages[-1] == "runtime-${ACCELERATOR}"
    assert any(stage.endswith(f" AS runtime-{accelerator}") for stage in stages)


def test_every_install_is_pinned() -> None:
    installs = [a for a in _arguments("RUN") if "pip install" in a or "pip wheel" in a]
    assert len(installs) == 4
    assert all("constraints.txt" in a or "--require-hashes" in a for a in installs)
