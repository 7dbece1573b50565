from __future__ import annotations

from pathlib import Path

import pytest
import torch

from server.engine.attention import AttentionSpec
from server.engine.engine import EngineConfig
from server.engine.errors import EngineError
from server.engine.loading import memory
from server.engine.loading.memory import free_memory_bytes, plan_kv_memory


def _spec(layer: int, num_kv_heads: int = 2, value_dim: int = 8) -> AttentionSpec:
    return AttentionSpec(
        layer, 4, num_kv_heads, 8, value_dim, 1.0, None, None, torch.bfloat16, torch.device("cpu")
    )


_SPECS = [_spec(0), _spec(1, num_kv_heads=4, value_dim=6)]
_TOKEN_BYTES = 2 * 2 * 16 + 2 * 4 * 14


def test_layers_of_different_widths_add_up() -> None:
    config = EngineConfig("m", kv_cache_bytes=100 * 16 * _TOKEN_BYTES + 1, block_size=16)
    planned = plan_kv_memory(config, _SPECS, 512)
    assert (planned.num_blocks, planned.num_bytes) == (100, 100 * 16 * _TOKEN_BYTES)
    assert planned.max_model_len == 512


def test_never_more_than_all_sequences_need() -> None:
    config = EngineConfig("m", kv_cache_bytes=10**9, max_model_len=100, max_num_seqs=3)
    assert plan_kv_memory(config, _SPECS, 512).num_blocks == 3 * 7


def test_an_automatic_context_shrinks_to_what_fits() -> None:
    config = EngineConfig("m", kv_cache_bytes=5 * 16 * _TOKEN_BYTES)
    assert plan_kv_memory(config, _SPECS, 512).max_model_len == 80


def test_a_share_of_free_memory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    free = "server.engine.loading.memory.free_memory_bytes"
    monkeypatch.setattr(free, lambda: 40 * 16 * _TOKEN_BYTES)
    assert plan_kv_memory(EngineConfig("m"), _SPECS, 512).num_blocks == 10


@pytest.mark.parametrize(
    ("changes", "max_positions", "param", "text"),
    [
        ({"max_model_len": 513}, 512, "max_model_len", "512"),
        ({}, None, "max_model_len", "does not say"),
        ({"kv_cache_bytes": 1}, 512, "kv_cache_bytes", "holds 0 tokens"),
        ({"kv_cache_bytes": 9000, "max_model_len": 512}, 512, "kv_cache_bytes", "512"),
    ],
)
def test_what_cannot_be_met_names_the_setting(
    changes: dict[str, int], max_positions: int | None, param: str, text: str
) -> None:
    with pytest.raises(EngineError, match=text) as caught:
        plan_kv_memory(EngineConfig("m", **changes), _SPECS, max_positions)  # type: ignore[arg-type]
    assert caught.value.param == param


def test_files_a_control_group_read_once_leave_memory_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert free_memory_bytes() == 100
    (tmp_path / "memory.stat").write_text("anon 200\nactive_file 300\ninactive_file 400\n")
    assert free_memory_bytes() == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes() > 500
