"""Blocks as one function: equal to their modules to the bit, and out of the way of hooks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

from server.engine.attention import ScheduledSequence
from server.engine.cpu import fuse_blocks
from server.engine.loading import LoadedModel
from tests.server.engine.harness import load_tiny

_FUSED = ["llama", "llama_biased", "mistral", "qwen2"]


@torch.inference_mode()
def _logits(loaded: LoadedModel, count: int) -> Tensor:
    """Logits of one prompt of `count` tokens, and of three tokens after it, one at a time."""
    rows = []
    steps = [(0, count), *((at, at + 1) for at in range(count, count + 3))]
    for start, stop in steps:
        loaded.attention.begin_step([ScheduledSequence(range(16), start, stop - start)])
        ids, positions = (
            (7 * torch.arange(start, stop) % 200)[None],
            torch.arange(start, stop)[None],
        )
        rows.append(loaded.model(input_ids=ids, position_ids=positions, use_cache=False).logits[0])
    return torch.cat(rows)


def _blocks(loaded: LoadedModel) -> list[nn.Module]:
    return [layer.block for layer in loaded.layout.layers]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", _FUSED)
def test_the_function_is_the_modules_to_the_bit(family: str, dtype: str, tmp_path: Path) -> None:
    loaded = load_tiny(family, tmp_path, dtype=dtype, decode_weights="off")
    expected = _logits(loaded, 21)
    assert fuse_blocks(_blocks(loaded), lambda _: False, partial(_logits, loaded, 3))
    assert torch.equal(_logits(loaded, 21), expected)


def test_a_block_that_is_looked_into_runs_by_its_modules(tmp_path: Path) -> None:
    loaded = load_tiny("llama", tmp_path)
    watched, seen = set[int](), list[int]()
    for index, block in enumerate(_blocks(loaded)):
        block.mlp.register_forward_hook(lambda *_, index=index: seen.append(index))
    fuse_blocks(_blocks(loaded), watched.__contains__, partial(_logits, loaded, 3))
    seen.clear()
    expected = _logits(loaded, 5)
    assert seen == []
    watched.add(1)
    assert torch.equal(_logits(loaded, 5), expected)
    assert seen == [1] * 4


def test_the_engine_that_has_the_model_now_is_asked(tmp_path: Path) -> None:
    loaded = load_tiny("llama", tmp_path)
    seen = list[int]()
    _blocks(loaded)[0].mlp.register_forward_hook(lambda *_: seen.append(0))
    for is_watched in (False, True):
        seen.clear()
        fuse_blocks(
            _blocks(loaded), lambda _, watched=is_watched: watched, partial(_logits, loaded, 3)
        )
        _logits(loaded, 5)
    assert len(seen) > 4


def test_a_model_that_computes_otherwise_keeps_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny("llama", tmp_path)
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: 1.01 * forward(self, x))
    expected = _logits(loaded, 5)
    assert not fuse_blocks(_blocks(loaded), lambda _: False, partial(_logits, loaded, 3))
    assert torch.equal(_logits(loaded, 5), expected)


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_other_families_keep_their_modules(family: str, tmp_path: Path) -> None:
    loaded = load_tiny(family, tmp_path)
    assert not fuse_blocks(_blocks(loaded), lambda _: False, partial(_logits, loaded, 3))
