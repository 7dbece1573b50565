"""Loads a checkpoint's folder into a model that is ready to serve."""

from __future__ import annotations

from .checkpoint import check_checkpoint, reading
from .loader import LoadedModel, load
from .residual_norms import NEUTRAL_TEXTS

__all__ = ["NEUTRAL_TEXTS", "LoadedModel", "check_checkpoint", "load", "reading"]
