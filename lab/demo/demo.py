"""A profile to ship: what it is chosen from, and by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .criterion import Criterion
from .fits import Fits
from .variant import Variant

__all__ = ["Demo"]


@dataclass(frozen=True, slots=True)
class Demo:
    """A profile and how it comes about.

    Attributes:
        profile: Its name.
        description: For people.
        criterion: What its variant is chosen by.
        variants: What it is chosen from.
        requires: Scopes a key must hold to use it.
        monitors: Directions of other demos read beside it.
    """

    profile: str
    description: str
    criterion: Criterion
    variants: Callable[[Fits], Sequence[Variant]]
    requires: tuple[str, ...] = ()
    monitors: tuple[str, ...] = ()
