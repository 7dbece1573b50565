"""A profile to ship: in which stages it is chosen, from what and by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .criterion import Criterion
from .fits import Fits
from .variant import Variant

__all__ = ["Demo", "Stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One choice.

    Attributes:
        criterion: By what.
        variants: From what; given what the stage before chose, at first nothing.
    """

    criterion: Criterion
    variants: Callable[[Fits, Variant], Sequence[Variant]]


@dataclass(frozen=True, slots=True)
class Demo:
    """A profile and how it comes about.

    Attributes:
        profile: Its name.
        description: For people.
        stages: In order; the last one's choice ships.
        requires: Scopes a key must hold to use it.
        monitors: Directions of other demos read beside it.
    """

    profile: str
    description: str
    stages: tuple[Stage, ...]
    requires: tuple[str, ...] = ()
    monitors: tuple[str, ...] = ()
