"""Many requests at once, but not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


async def map_concurrently(
    limit: int, work: Callable[[_T], Awaitable[_R]], items: Iterable[_T]
) -> list[_R]:
    """`work` of every item, at most `limit` at a time; results in the order of the items.

    The first failure cancels what is under way and is raised itself.
    """
    places = asyncio.Semaphore(limit)

    async def one(item: _T) -> _R:
        async with places:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
