"""Patience with the engine: work is asked for again where its queue is full."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from server.engine.errors import QueueFullError

__all__ = ["patiently"]

_T = TypeVar("_T")
_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 2.0


async def patiently(one: Callable[[slice], Awaitable[_T]], rows: slice) -> _T:
    """What `one` gives for `rows`, asked again while chats fill the queue.

    Only cancelling ends the wait.
    """
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return await one(rows)
        except QueueFullError:
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
