"""The command `coxswain`: serve, size models, bake, manage keys, tend the store, its version."""

from __future__ import annotations

from .command import app, main

__all__ = ["app", "main"]
