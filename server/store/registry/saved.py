"""The answer to saving something that may be there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Saved"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Saved(Generic[_T]):
    """What is stored now, and whether this call stored it.

    Attributes:
        record: The version that holds what was given.
        created: False where it was there before.
    """

    record: _T
    created: bool
