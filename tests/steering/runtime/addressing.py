"""Makes the kernel reach its rows in one of its ways, whatever would be cheapest."""

from __future__ import annotations

from typing import Final

import pytest

from steering.runtime import selection

__all__ = ["ADDRESSING", "prefer"]

_BLOCK: Final = 4  # batches of tests are small
_NEVER: Final = 10**6

ADDRESSING: Final = {
    "dense": {1: _NEVER, _BLOCK: _NEVER},
    "single": {1: 0, _BLOCK: _NEVER},
    "blocks": {1: _NEVER, _BLOCK: 0},
}
"""Prices by which one way is chosen wherever it can be."""


def prefer(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Set the prices of `way`, and blocks that fit batches of tests."""
    monkeypatch.setattr(selection, "BLOCK", _BLOCK)
    monkeypatch.setattr(selection, "PRICES", ADDRESSING[way])
    monkeypatch.setattr(selection, "_SECOND_PART", 0)
