"""Scopes that a direction or profile asks of a key."""

from __future__ import annotations

from collections.abc import Sequence

from server.auth import KeyScope
from steering.errors import InvalidFieldError

__all__ = ["check_requires"]


def check_requires(requires: Sequence[str]) -> None:
    """Check that every entry is a scope that keys can hold.

    Raises:
        InvalidFieldError: One is not; names it.
    """
    for index, scope in enumerate(requires):
        if scope not in list(KeyScope):
            raise InvalidFieldError(
                f"requires[{index}] is {str(scope)[:80]!r}; expected one of {', '.join(KeyScope)}",
                param=f"requires[{index}]",
            )
