"""Scopes that a direction or profile asks of a key."""

from __future__ import annotations

from collections.abc import Sequence

from server.auth.permissions import KeyScope
from steering.errors import InvalidFieldError
from steering.requirements import WEAKEN, scope_of

__all__ = ["check_requires"]


def check_requires(requires: Sequence[str], *, of_direction: bool = False) -> None:
    """Check that every entry is a scope that keys can hold; a direction's may be `weaken:<scope>`.

    Raises:
        InvalidFieldError: One is not; names it.
    """
    also = f", also after {WEAKEN!r}" if of_direction else ""
    for index, entry in enumerate(requires):
        if (scope_of(entry) if of_direction else entry) not in list(KeyScope):
            raise InvalidFieldError(
                f"requires[{index}] is {str(entry)[:80]!r}; expected one of "
                f"{', '.join(KeyScope)}{also}",
                param=f"requires[{index}]",
            )
