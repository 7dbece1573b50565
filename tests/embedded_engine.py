"""The embedded model as tests serve it: float32, one thread, a small cache."""

from __future__ import annotations

from server.engine.async_engine import AsyncEngine
from server.engine.engine import EngineConfig
from server.models import EMBEDDED_MODEL

__all__ = ["start_embedded"]


def start_embedded(served_name: str | None = None) -> AsyncEngine:
    """An engine of its own; the caller closes it."""
    return AsyncEngine.start(
        EngineConfig(
            model=str(EMBEDDED_MODEL),
            served_name=served_name,
            device="cpu",
            dtype="float32",
            num_threads=1,
            kv_cache_bytes=64 * 2**20,
        )
    )
