"""The setting `decode_weights`, through the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.engine.cpu import has_float16_products
from server.engine.cpu.packing import product_of
from server.engine.errors import ModelLoadError
from server.engine.loading import LoadedModel, loader
from tests.server.engine.harness import load_tiny

_needs_fbgemm = pytest.mark.skipif(not has_float16_products(), reason="torch has no FBGEMM here")


def _max_rows(loaded: LoadedModel) -> int:
    product = product_of(loaded.layout.layers[0].block.mlp.down_proj)
    assert product is not None
    assert product.has_float16 is (product.max_float16_rows > 0)
    return product.max_float16_rows


@_needs_fbgemm
@pytest.mark.parametrize(("chosen", "rows"), [("auto", 24), ("float16", 6), ("off", 0)])
def test_the_setting_says_up_to_how_many_rows(
    chosen: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "measure_float16_rows", lambda _: 24)
    loaded = load_tiny("llama", tmp_path, dtype="bfloat16", decode_weights=chosen)
    assert _max_rows(loaded) == rows


@_needs_fbgemm
def test_a_form_that_never_pays_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "measure_float16_rows", lambda _: 0)
    assert _max_rows(load_tiny("llama", tmp_path, dtype="bfloat16")) == 0


@_needs_fbgemm
def test_little_memory_leaves_the_second_form_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "free_memory_bytes", lambda: 6 * 60_000)
    monkeypatch.setattr(loader, "linear_weight_bytes", lambda *_: 60_000)
    loaded = load_tiny("llama", tmp_path, dtype="bfloat16")
    assert _max_rows(loaded) == 0


def test_float16_weights_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="expected auto or off") as raised:
        load_tiny("llama", tmp_path, dtype="float32", decode_weights="float16")
    assert raised.value.param == "decode_weights"
