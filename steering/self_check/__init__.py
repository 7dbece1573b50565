"""The check at load that an architecture map says where a model keeps what."""

from __future__ import annotations

from .self_check import self_check

__all__ = ["self_check"]
