"""Requests at once: as many as allowed, in order, and the first failure itself."""

from __future__ import annotations

import asyncio

import pytest

from coxswain_evals.concurrency import map_concurrently


async def test_no_more_than_the_limit_are_under_way() -> None:
    running, most = 0, 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(item % 3 + 1):
            await asyncio.sleep(0)
        running -= 1
        return item * item

    assert await map_concurrently(3, work, range(20)) == [item * item for item in range(20)]
    assert most == 3


async def test_a_failure_is_raised_itself_and_ends_the_rest() -> None:
    finished: list[int] = []
    gate = asyncio.Event()

    async def work(item: int) -> None:
        if item == 1:
            raise ValueError("the first")
        await gate.wait()
        finished.append(item)

    with pytest.raises(ValueError, match="the first"):
        await map_concurrently(2, work, range(5))
    gate.set()
    assert finished == []
