"""What is said of a model before it is loaded is what it takes when it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from server.engine.attention import inspect_attention
from server.engine.cpu import has_float16_products, linear_weight_bytes
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from server.engine.loading import load
from server.engine.loading.sizing import size_model
from steering.errors import UnsupportedArchitectureError
from tests.models.checkpoint import save_tiny


def config(folder: Path, **changes: object) -> EngineConfig:
    given = EngineConfig(str(folder), device="cpu", num_threads=1, kv_cache_bytes=2**20)
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "qwen3_moe"])
def test_it_takes_what_loading_takes(family: str, tmp_path: Path) -> None:
    given = config(save_tiny(family, tmp_path / family), dtype="bfloat16")
    size, loaded = size_model(given), load(given)
    parameters = list(loaded.model.parameters())
    assert size.num_parameters == sum(parameter.numel() for parameter in parameters)
    held = {tensor.data_ptr(): tensor.nbytes for tensor in parameters}
    buffers = sum(tensor.nbytes for tensor in loaded.model.buffers())
    assert size.weight_bytes == sum(held.values()) + buffers
    assert size.dtype == loaded.info.dtype
    if family != "gpt2":  # its maps are no Linear; they are packed all the same
        in_float16 = linear_weight_bytes(loaded.model, torch.float16)
        second = in_float16 if has_float16_products() else 0
        assert size.packed_bytes == linear_weight_bytes(loaded.model) + second
    specs = [spec for _, spec in inspect_attention(loaded.model)]
    assert size.kv_token_bytes == sum(spec.kv_bytes_per_token for spec in specs)
    assert size.cache is not None
    assert size.cache.num_blocks == loaded.info.num_kv_blocks
    assert size.cache.max_model_len == loaded.info.max_model_len


def test_weights_beyond_the_memory_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny("llama", tmp_path / "tiny")
    needed = size_model(config(folder)).weight_bytes
    monkeypatch.setattr("server.engine.loading.sizing.free_device_bytes", lambda _: needed - 1)
    size = size_model(config(folder))
    assert size.cache is None
    assert size.fault == f"its weights take {needed} bytes on cpu, of which {needed - 1} are free"
    name = "server.engine.loading.pretrained.free_device_bytes"
    monkeypatch.setattr(name, lambda _: needed - 1)
    with pytest.raises(ModelLoadError, match=f"needs {needed} bytes on cpu"):
        load(config(folder))


def test_what_the_weights_leave_is_what_the_cache_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny("llama", tmp_path / "tiny")
    whole = size_model(config(folder, kv_cache_bytes=0))
    free = whole.weight_bytes + 40 * 16 * whole.kv_token_bytes
    for module in ("sizing", "memory"):
        monkeypatch.setattr(f"server.engine.loading.{module}.free_device_bytes", lambda _: free)
    size = size_model(config(folder, kv_cache_bytes=0, pack_weights=False))
    assert size.cache is not None
    assert size.cache.num_blocks == 10, "a quarter"
    packed = size_model(config(folder, kv_cache_bytes=0))
    assert packed.packed_bytes == 0, "no quarter of it holds them"


def test_a_context_that_is_not_the_model_s_is_told(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "tiny")
    size = size_model(config(folder, max_model_len=100_000))
    assert size.fault is not None
    assert "made for 512 positions" in size.fault


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError):
        size_model(config(save_tiny("falcon", tmp_path / "tiny")))
