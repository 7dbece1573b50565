"""Threads for work that would block the event loop, in pools of which none can fill another."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar

from steering.errors import CoxswainError

from .store.errors import StoreBusyError

_T = TypeVar("_T")

_STORE_WAIT_SECONDS: Final = 5.0
_BULK_WAIT_SECONDS: Final = 30.0


class PoolFullError(CoxswainError):
    """Too much work of one sort waits already, or has waited too long."""

    code = "server_busy"


class Compute(Protocol):
    """Calls a function in a thread of its own and returns what it returns."""

    async def __call__(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
        """Return what `function` returns; raises what it raises."""
        ...


class Pool:
    """A bounded number of threads with a bounded queue before them. Thread-safe.

    Args:
        name: Name of the threads; also says in the message where there is no room.
        num_threads: Number of calls that run at once.
        max_waiting: Most calls that wait for a thread; more are refused at once.
        max_wait_seconds: Longest wait; after it a call is refused, and never runs.
        full: Makes the error raised where a call is refused.
    """

    def __init__(
        self,
        name: str,
        num_threads: int,
        *,
        max_waiting: int,
        max_wait_seconds: float = _STORE_WAIT_SECONDS,
        full: Callable[[str], Exception] = PoolFullError,
    ) -> None:
        self._name = name
        self._full = full
        self._max_wait = max_wait_seconds
        self._room = threading.Semaphore(num_threads + max_waiting)
        self._executor = ThreadPoolExecutor(num_threads, f"coxswain-{name}")

    async def run(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
        """Call `function` in a thread of the pool and the caller's context; returns its result.

        A caller that is cancelled takes a call back that has not begun; one that runs goes on.

        Raises:
            Exception: `full`, where there is no room; otherwise what `function` raises.
        """
        call = self._submit(partial(contextvars.copy_context().run, function, *args, **kwargs))
        future = asyncio.wrap_future(call)
        try:
            done, _ = await asyncio.wait({future}, timeout=self._max_wait)
            if not done and call.cancel():
                raise self._refusal()
            return await future
        except asyncio.CancelledError:
            future.cancel()
            raise

    def close(self) -> None:
        """Begin nothing more, and wait for what runs."""
        self._executor.shutdown(cancel_futures=True)

    def _submit(self, call: Callable[[], _T]) -> Future[_T]:
        if not self._room.acquire(blocking=False):
            raise self._refusal()
        future = self._executor.submit(call)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _refusal(self) -> Exception:
        return self._full(f"too many {self._name} wait; try again shortly")


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools of one server.

    What waits for another process has a pool apart from what only computes, and what may be slow
    by itself one apart from what chats need.

    Attributes:
        quick: Computes what a chat needs from memory; never asks the store.
        reads: Asks the store.
        writes: Changes the store; may wait for another writer.
        bodies: Parses large bodies, and writes large answers.
        bulk: Reads uploads and jobs' requests, and analyses.
        jobs: What running jobs store and look up.
        health: Asks the store whether it answers.
    """

    quick: Pool
    reads: Pool
    writes: Pool
    bodies: Pool
    bulk: Pool
    jobs: Pool
    health: Pool

    @classmethod
    def open(cls) -> Self:
        """New pools; their threads begin with the first call."""
        busy = StoreBusyError
        return cls(
            quick=Pool("requests", 4, max_waiting=256),
            reads=Pool("look-ups in the store", 8, max_waiting=256, full=busy),
            writes=Pool("changes of the store", 4, max_waiting=64, full=busy),
            bodies=Pool("large bodies", 2, max_waiting=256, max_wait_seconds=_BULK_WAIT_SECONDS),
            bulk=Pool(
                "uploads and analyses", 2, max_waiting=16, max_wait_seconds=_BULK_WAIT_SECONDS
            ),
            health=Pool("questions", 1, max_waiting=1, full=busy),
            jobs=Pool("jobs", 2, max_waiting=256, max_wait_seconds=_BULK_WAIT_SECONDS, full=busy),
        )

    def close(self) -> None:
        """Begin nothing more, and wait for what runs."""
        for field in fields(self):
            getattr(self, field.name).close()
