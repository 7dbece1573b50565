"""The blocks of keys and values that requests hold, and their reuse; no tensors."""

from __future__ import annotations

from .kv_cache import KVCacheManager

__all__ = ["KVCacheManager"]
