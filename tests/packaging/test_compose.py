"""The compose files: valid, and safe as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.source_tree import ROOT

_FILES = ["docker-compose.yml", "deploy/cuda.yml"]
# Made by whoever deploys; docs/deploy.md says how.
_MADE_BY_HAND = re.compile(r"\./secrets/|\$\{MODEL_DIR:-\./models\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("name", _FILES)
def test_it_follows_the_compose_specification(name: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", ROOT / name),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_can_fail(tmp_path: Any) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text("services:\n  server:\n    imagge: x\n")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*command, path], capture_output=True, check=False).returncode == 1


def test_running_streams_outlive_the_stop_signal(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    drain = int(server["environment"]["COXSWAIN_DRAIN_TIMEOUT_SECONDS"])
    assert _seconds(server["stop_grace_period"]) > drain


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for port in service["ports"]:
            assert port.startswith(("127.0.0.1:", "${COXSWAIN_PUBLISH:-127.0.0.1:")), port


def test_the_server_is_confined(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert "privileged" not in server
    assert "/health/ready" in server["healthcheck"]["test"][-1]


def test_everything_mounted_is_in_the_repository(compose: dict[str, Any]) -> None:
    mounts = [v for service in compose["services"].values() for v in service["volumes"]]
    files = [secret["file"] for secret in compose["secrets"].values()]
    for source in [re.match(r"(\$\{[^}]*\}|[^:]+)", mount)[1] for mount in mounts] + files:  # type: ignore[index]
        if source in compose["volumes"] or _MADE_BY_HAND.match(source):
            continue
        assert (ROOT / source).exists(), source


def test_images_have_versions(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), service["image"]


def test_secrets_are_files_that_are_not_committed(compose: dict[str, Any]) -> None:
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    for name, secret in compose["secrets"].items():
        assert secret["file"] == f"./secrets/{name}"
