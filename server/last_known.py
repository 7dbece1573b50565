"""The store's last answers, for when asking again is not worth the wait."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from .pools import Pool
from .store.errors import StoreUnavailableError

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Terms:
    """How long an answer of the store may be given again, in seconds.

    Attributes:
        fresh: Age up to which it is given without asking again.
        patience: Time a caller waits for a new answer, before it is given the old one.
        stale: Age up to which it is given while the store does not answer.
    """

    fresh: float = 2.0
    patience: float = 0.25
    stale: float = 60.0


DEFAULT_TERMS: Final = Terms()
"""Terms of keys, and of the meaning of names."""


@dataclass(slots=True, eq=False)
class _PendingQuestion(Generic[_V]):
    began_at: float
    task: asyncio.Task[_V]


class LastKnown(Generic[_K, _V]):
    """Answers of the store by key, each asked for once at a time. Used on the event loop only.

    While an answer is fresh, nobody asks. Later, everybody gets what the store answers within the
    patience of a caller; where it is not there by then, or the store cannot be reached, the old
    answer until it is stale. An error of any other sort is an answer: the old one is gone.

    Args:
        pool: The threads that ask the store.
        terms: How long an answer may be given again.
        limit: Most answers kept; the least recently used is dropped first.
        clock: Gives the time in seconds; monotonic.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        terms: Terms = DEFAULT_TERMS,
        limit: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._terms = terms
        self._limit = limit
        self._clock = clock
        self._answers: OrderedDict[_K, tuple[float, _V]] = OrderedDict()
        self._asking: dict[_K, _PendingQuestion[_V]] = {}

    async def get(self, key: _K, ask: Callable[[], _V]) -> _V:
        """The answer of `ask`, or its last one for `key`.

        Raises:
            Exception: What `ask` raises; StoreUnavailableError only where no answer stands.
        """
        known, now = self._answers.get(key), self._clock()
        if known is not None and now - known[0] < self._terms.fresh:
            self._answers.move_to_end(key)
            return known[1]
        asking = self._asking.get(key) or self._begin(key, ask)
        if known is not None and now - known[0] < self._terms.stale:
            left = asking.began_at + self._terms.patience - now
            await asyncio.wait({asking.task}, timeout=max(left, 0.0))
            is_silent = not asking.task.done() or isinstance(
                asking.task.exception(), StoreUnavailableError
            )
            if is_silent and self._answers.get(key) is known:
                return known[1]
        return await asyncio.shield(asking.task)

    def forget(self, is_meant: Callable[[_V], bool]) -> None:
        """Drop answers, and those that are being asked for: what they are about has changed."""
        for key in [key for key, (_, value) in self._answers.items() if is_meant(value)]:
            del self._answers[key]
        self._asking.clear()

    def _begin(self, key: _K, ask: Callable[[], _V]) -> _PendingQuestion[_V]:
        began_at = self._clock()
        task = asyncio.create_task(self._pool.run(ask))
        asking = self._asking[key] = _PendingQuestion(began_at, task)
        task.add_done_callback(lambda _: self._end(key, asking))
        return asking

    def _end(self, key: _K, asking: _PendingQuestion[_V]) -> None:
        error = None if asking.task.cancelled() else asking.task.exception()
        if self._asking.get(key) is not asking:
            return  # forgotten while it was asked for
        del self._asking[key]
        if asking.task.cancelled() or isinstance(error, StoreUnavailableError):
            return
        self._answers.pop(key, None)
        if error is None:
            self._answers[key] = (asking.began_at, asking.task.result())
            if len(self._answers) > self._limit:
                self._answers.popitem(last=False)
