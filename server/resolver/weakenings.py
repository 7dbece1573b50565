"""Asking a key for the permission to weaken locked directions."""

from __future__ import annotations

from collections.abc import Iterable

from server.auth.permissions import Principal
from steering.requirements import Weakening

__all__ = ["allow_weakenings"]


def allow_weakenings(weakenings: Iterable[Weakening], caller: Principal) -> None:
    """Check that `caller` may do each of them.

    Raises:
        PermissionDeniedError: The key lacks a permission; says what makes it one that weakens.
    """
    for found in weakenings:
        because = f"{found.path} may weaken {found.direction.reference}: {found.why}"
        caller.require(*found.scopes, param=found.path, because=because)
