"""From a model's name to the files it is loaded from."""

from __future__ import annotations

from .hub import cached_ids
from .named import DEMO_DIR, DEMO_DIRS, EMBEDDED_MODEL, ORGANISM, SMOLLM2, SMOLLM2_DEMO_DIR
from .source import ModelSource, find_model

__all__ = [
    "DEMO_DIR",
    "DEMO_DIRS",
    "EMBEDDED_MODEL",
    "ORGANISM",
    "SMOLLM2",
    "SMOLLM2_DEMO_DIR",
    "ModelSource",
    "cached_ids",
    "find_model",
]
