"""Several pieces of work for one caller, all of which end when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["together"]

_T = TypeVar("_T")


async def together(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
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
