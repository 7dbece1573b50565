"""The command `coxswain`: serve, bake, manage keys, tend the store, say the version."""

from __future__ import annotations

from .command import app, main

__all__ = ["app", "main"]
