"""The word lists of the grammar: TOML beside the code, read on first use."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["read"]

_FOLDER = Path(__file__).parent / "lexicon"


@cache
def read(name: str) -> dict[str, Any]:
    """Parse one of the files; callers share the result and must not change it."""
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
