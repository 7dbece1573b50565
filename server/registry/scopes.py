"""Asking a key for the permission to weaken a locked direction."""

from __future__ import annotations

from server.auth import Principal
from steering.requirements import Weakening

__all__ = ["allow_weakening"]


def allow_weakening(weakening: Weakening, caller: Principal) -> None:
    """Check that `caller` may do so.

    Raises:
        PermissionDeniedError: The key lacks a permission; says what makes it one that weakens.
    """
    because = f"{weakening.path} may weaken {weakening.direction.reference}: {weakening.why}"
    caller.require(*weakening.scopes, param=weakening.path, because=because)
