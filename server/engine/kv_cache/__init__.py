"""Which blocks of keys and values each request holds, and what can be used again; no tensors."""

from __future__ import annotations

from .kv_cache import KVCacheManager

__all__ = ["KVCacheManager"]
