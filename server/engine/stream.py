"""The way of one request's outputs from the engine's thread to the coroutine that reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from .errors import EngineError, SlowClientError
from .outputs import RequestOutput

__all__ = ["OutputStream", "StreamItem", "deliver", "gather_or_cancel"]

StreamItem = RequestOutput | EngineError

_Result = TypeVar("_Result")


class OutputStream:
    """A bounded queue owned by one event loop; the engine never waits for its reader."""

    def __init__(self, max_items: int, on_overflow: Callable[[], None]) -> None:
        """Belong to the running event loop.

        Args:
            max_items: Outputs the reader may be behind.
            on_overflow: Called once, on the loop, when it is further behind.
        """
        self.loop = asyncio.get_running_loop()
        self._max_items = max_items
        self._on_overflow = on_overflow
        self._items: asyncio.Queue[StreamItem] = asyncio.Queue()
        self._is_closed = False

    def push(self, item: StreamItem) -> None:
        """Add an item; only on the owning loop."""
        if self._is_closed:
            return
        if self._items.qsize() >= self._max_items:
            self._is_closed = True
            self._items = asyncio.Queue()
            item = SlowClientError(
                f"the reader is {self._max_items} outputs behind; the request was cancelled"
            )
            self._on_overflow()
        self._items.put_nowait(item)

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """Outputs until the one with a finish reason.

        Raises:
            EngineError: The request failed.
        """
        while True:
            item = await self._items.get()
            if isinstance(item, EngineError):
                raise item
            yield item
            if item.finish_reason is not None:
                return

    async def last(self) -> RequestOutput:
        """The output with the finish reason.

        Raises:
            EngineError: The request failed.
        """
        async with aclosing(self.outputs()) as outputs:
            return [output async for output in outputs][-1]


def deliver(items: Sequence[tuple[OutputStream, StreamItem]]) -> None:
    """Hand a step's outputs to their loops, waking each loop once; from the engine's thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OutputStream, StreamItem]]] = {}
    for stream, item in items:
        by_loop.setdefault(stream.loop, []).append((stream, item))
    for loop, batch in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_push_all, batch)


def _push_all(batch: Sequence[tuple[OutputStream, StreamItem]]) -> None:
    for stream, item in batch:
        stream.push(item)


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """All results in order; the first that fails, whichever it is, ends the others.

    It returns only when all have ended, so what they asked of an engine is no longer asked.
    `asyncio.gather` leaves the others running, and a loop that awaits one after another does not
    see a failure before its turn.

    Raises:
        Exception: That of the one that failed first, as it was raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except* Exception as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
