"""A model whose tokens see other requests is refused at load, whatever lets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from server.engine.attention import PagedAttention
from server.engine.loading import LoadedModel
from server.engine.loading.pack_check import check_packing
from steering.errors import UnsupportedArchitectureError
from tests.models.families import family_model
from tests.server.engine.harness import load_tiny, load_tiny_model


def check(loaded: LoadedModel) -> None:
    check_packing(loaded.model, loaded.attention, loaded.device)


def shift(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    """Mix each token with the one before it in the forward, as a short convolution would."""
    return output + 0.2 * output.roll(1, dims=-2)


def average(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return output + 0.2 * output.mean(dim=-2, keepdim=True)


def count_rows(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    rows = torch.arange(output.shape[-2], dtype=output.dtype)
    return output * (1 + 0.1 * rows[:, None])


@pytest.mark.parametrize("mix", [shift, average, count_rows])
@pytest.mark.parametrize("path", ["model.layers.0.mlp", "model.layers.3.mlp"])
def test_tokens_that_see_other_rows_are_found(
    mix: Callable[..., Tensor], path: str, tmp_path: Path
) -> None:
    loaded = load_tiny("llama", tmp_path)
    check(loaded)
    loaded.model.get_submodule(path).register_forward_hook(mix)
    with pytest.raises(UnsupportedArchitectureError, match="requests would change each other"):
        check(loaded)


def test_llama_4_that_counts_rows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.loading.loader.give_positions", lambda _model: 0)
    with pytest.raises(UnsupportedArchitectureError, match="Llama4ForCausalLM gives other"):
        load_tiny_model(family_model("llama4"), tmp_path)


def test_a_cache_of_one_sequence_is_not_asked(tmp_path: Path) -> None:
    loaded = load_tiny("llama", tmp_path)
    small = PagedAttention([(nn.Module(), spec) for spec in loaded.attention.specs], 5, 4)
    check_packing(loaded.model, small, loaded.device)
