"""A bounded cache of what was used last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from cachetools import LRUCache

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class LruCache(Generic[_K, _V]):
    """`cachetools.LRUCache`, safe to use from several threads at once.

    Args:
        limit: Most weight held; beyond it, the values unused for longest go.
        weigh: Weight of a value; each weighs 1 by default. A value heavier than the limit is
            returned and not kept.
    """

    def __init__(self, limit: int, weigh: Callable[[_V], int] | None = None) -> None:
        self._values: LRUCache[_K, _V] = LRUCache(limit, weigh)
        self._lock = threading.Lock()

    def get(self, key: _K) -> _V | None:
        """The value of `key`, or None if it is not here."""
        with self._lock:
            return self._values.get(key)

    def get_or(self, key: _K, make: Callable[[], _V]) -> _V:
        """The value of `key`, made if it is not here.

        Two threads may both make it, as the lock is not held meanwhile; the first one's is kept.
        """
        with self._lock:
            if key in self._values:
                return self._values[key]
        value = make()
        with suppress(ValueError), self._lock:  # raised for a value heavier than the limit
            return self._values.setdefault(key, value)
        return value
