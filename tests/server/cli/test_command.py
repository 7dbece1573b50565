"""The command line, without a model."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from server.cli import app
from server.engine.async_engine import AsyncEngine
from server.store import Store
from steering.directions import Direction, DirectionKind
from steering.formats import dump_direction
from steering.sites import Site
from tests.models.checkpoint import save_tiny
from tests.models.gguf import save_tiny_gguf


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


def fails(result: Result, expected: str) -> None:
    """Status 2, one line of why after the log, and no traceback."""
    assert result.exit_code == 2
    *log, told = result.stderr.splitlines()
    assert told.startswith("coxswain: ")
    assert expected in told
    assert "Traceback" not in result.output
    assert all(line.startswith("{") for line in log)
    assert result.stdout == ""


def direction(folder: Path) -> Path:
    path = folder / "direction.safetensors"
    vector = {"vector": torch.ones(32)}
    found = Direction("push", DirectionKind.VECTOR, Site.MLP_OUT, (0, 1, 2, 3), vector)
    path.write_bytes(dump_direction(found))
    return path


def _edit(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def _quantise(path: Path, method: str) -> None:
    _edit(path, quantization_config={"quant_method": method, "bits": 4})


def test_it_says_its_version() -> None:
    assert run("version").stdout.strip() == version("coxswain")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("keys", "create", "--scope", "root"), "no such scope: root"),
        (("keys", "create", "--name", " "), "name is empty"),
        (("keys", "revoke", "nope"), "there is no key 'nope'"),
        (("serve", "--port", "70000"), "COXSWAIN_PORT"),
        (("serve", "--dtype", "int8"), "COXSWAIN_DTYPE"),
        (("serve", "--host", "0.0.0.0"), "coxswain keys create"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    result = run(*arguments, "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_the_environment_is_read_and_options_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COXSWAIN_DATA_DIR", str(tmp_path / "environment"))
    run("keys", "create")
    assert (tmp_path / "environment" / "coxswain.db").exists()
    run("keys", "create", "--data-dir", str(tmp_path / "option"))
    assert (tmp_path / "option" / "coxswain.db").exists()


CHECKPOINT_FAULTS: Mapping[str, Callable[[Path], object]] = {
    "does not exist": lambda path: shutil.rmtree(path),
    "config.json": lambda path: (path / "config.json").unlink(),
    "not JSON": lambda path: (path / "config.json").write_text("{"),
    "config.json cannot be used": lambda path: (path / "config.json").write_text(
        '{"model_type":1}'
    ),
    "save_pretrained": lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
    "cannot be read": lambda path: (path / "model.safetensors").write_bytes(b"\1"),
    "tokenizer cannot be used": lambda path: (path / "tokenizer.json").unlink(),
    "merge_and_unload": lambda path: (path / "adapter_config.json").write_text("{}"),
    **{
        f"quantised ({method})": partial(_quantise, method=method)
        for method in ("awq", "bitsandbytes", "compressed-tensors", "gptq", "hqq")
    },
}


@pytest.mark.parametrize("command", ["serve", "bake"])
@pytest.mark.parametrize("expected", CHECKPOINT_FAULTS)
def test_a_fault_of_the_checkpoint_is_told_in_a_line(
    command: str, expected: str, tmp_path: Path
) -> None:
    model = save_tiny("llama", tmp_path / "model")
    CHECKPOINT_FAULTS[expected](model)
    options = {
        "serve": ("--port", "0", "--data-dir", str(tmp_path / "data")),
        "bake": ("--dry-run", "--operation", "ablate", "--direction", str(direction(tmp_path))),
    }
    fails(run(command, "--model", str(model), *options[command]), expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DEVICE", "cuda:7", "this machine has cpu"),
        ("DEVICE", "nonsense", "this machine has cpu"),
        ("DEVICE_MAP", "nonsense", "expected none, auto, balanced"),
        ("MAX_MODEL_LEN", "100000", "made for 512 positions"),
        ("KV_CACHE_BYTES", "10", "holds 0 tokens"),
        ("BLOCK_SIZE", str(10**15), "holds 0 tokens"),
        ("THREADS", str(10**10), "COXSWAIN_THREADS"),
        ("DATABASE_URL", "nonsense", "the database URL cannot be read"),
        ("DATABASE_URL", "sqlite+absent:///x", "driver is 'sqlite+absent'"),
        ("DATABASE_URL", "mysql://x/y", "expected sqlite or postgresql"),
        ("DATABASE_URL", "sqlite:////absent/x.db", "unable to open"),
        ("ARTIFACTS_URL", "ftp://x/y", "expected s3"),
        ("DATA_DIR", "/dev/null/x", "Not a directory"),
        ("HOST", "no such host", "neither an address nor a name"),
        ("HOST", "a" * 64 + ".x", "neither an address nor a name"),
        ("HOST", "192.0.2.1", "cannot be bound on this machine"),
    ],
)
def test_a_setting_that_cannot_be_met_is_told_in_a_line(
    name: str, value: str, expected: str, tmp_path: Path
) -> None:
    model = save_tiny("llama", tmp_path / "model")
    settings = {"PORT": "0", "MODEL": str(model), "DATA_DIR": str(tmp_path / "data"), name: value}
    fails(
        run("serve", env={f"COXSWAIN_{name}": value for name, value in settings.items()}), expected
    )


def test_a_cache_beyond_the_memory_is_told_in_a_line(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    settings = {"PORT": "0", "MODEL": str(model), "DATA_DIR": str(tmp_path / "data")}
    settings |= {"KV_CACHE_BYTES": str(10**18), "MAX_NUM_SEQS": str(10**12)}
    result = run("serve", env={f"COXSWAIN_{name}": value for name, value in settings.items()})
    fails(result, "kv_cache_bytes asks for")


def test_a_port_in_use_is_told_before_anything_is_loaded_or_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncEngine, "start", None)  # not to be called
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port, "--data-dir", str(tmp_path / "data"))
    fails(result, f"port {port} of '127.0.0.1' is in use")
    assert not (tmp_path / "data").exists()


def test_debug_shows_where_a_fault_arose(tmp_path: Path) -> None:
    arguments = ("keys", "revoke", "nope", "--data-dir", str(tmp_path))
    assert "Traceback" not in run(*arguments).output
    result = run("--debug", *arguments)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("coxswain: there is no key 'nope'")


def test_a_fault_of_our_own_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "open", None)
    result = run("keys", "list", "--data-dir", str(tmp_path))
    assert isinstance(result.exception, TypeError)
    assert result.exit_code == 1


@pytest.mark.parametrize("absent", ["--direction", "--prompts", "--profile"])
def test_what_bake_is_given_is_read_before_the_model(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.bake.run.load", None)  # not to be called
    given = {"--direction": str(direction(tmp_path)), "--operation": "ablate"}
    if absent == "--profile":
        given = {"--data-dir": str(tmp_path / "data")}
    given[absent] = "absent"
    options = [part for pair in given.items() for part in pair]
    result = run("bake", "--dry-run", "--model", str(tmp_path), *options)
    assert result.exit_code == 2
    assert "'absent'" in result.stderr.splitlines()[-1]


def test_a_gguf_file_is_baked_into_a_checkpoint(tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.gguf", tmp_path / "baked"
    save_tiny_gguf("llama", file)
    options = ("--direction", str(direction(tmp_path)), "--operation", "ablate", "--alpha", "1")
    data = ("--data-dir", str(tmp_path / "data"))
    result = run("bake", "--model", str(file), "--out", str(out), *options, *data)
    assert result.exit_code == 0, result.stderr
    [made] = (tmp_path / "data" / "models").iterdir()
    before, after = (load_file(folder / "model.safetensors") for folder in (made, out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(4)} | {
        f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(4)
    }


def test_an_adapter_that_is_absent_is_told_in_a_line(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    options = ("--model", str(model), "--data-dir", str(tmp_path / "data"), "--port", "0")
    result = run("serve", *options, "--adapter", str(tmp_path / "absent"))
    fails(result, "is no folder; expected the folder of a LoRA adapter")
