"""A bounded cache of what was used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["LruCache"]

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class LruCache(Generic[_K, _V]):
    """Values by key; beyond the limit, those unused for longest go. Thread-safe.

    Args:
        limit: Most weight held.
        weigh: Weight of a value; each weighs 1 by default. A value heavier than the limit is
            returned and not kept.
    """

    def __init__(self, limit: int, weigh: Callable[[_V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[_K, _V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _K) -> _V | None:
        """The value of `key`, if it is here."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def get_or(self, key: _K, make: Callable[[], _V]) -> _V:
        """The value of `key`, made if it is not here. Two threads may both make it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            weight = self._weigh(value)
            if key not in self._values and weight <= self._limit:
                self._values[key] = value
                self._weight += weight
            while self._weight > self._limit:
                _, dropped = self._values.popitem(last=False)
                self._weight -= self._weigh(dropped)
        return value
