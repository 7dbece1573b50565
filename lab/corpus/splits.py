"""Which split a piece of the grammar belongs to: decided by its text alone, never by a seed."""

from __future__ import annotations

import hashlib
from typing import Literal

__all__ = ["SPLITS", "Split", "split_of"]

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(key: str) -> Split:
    """Return the split of a grammar key such as "prune rose": 80% train, 10% each held out."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    if bucket == 0:
        return "validation"
    return "test" if bucket == 1 else "train"
