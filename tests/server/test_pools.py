"""Pools: bounded, apart from each other, and quick to say that they are full."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest

from server.pools import Pool, PoolFullError, Pools
from server.store.errors import StoreBusyError

_NAME = contextvars.ContextVar("name", default="none")


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Lets blocked calls go on; at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


class Blocked:
    """A call that waits until it may go on, and counts how often it was begun."""

    def __init__(self, go: threading.Event) -> None:
        self.began = threading.Semaphore(0)
        self.count = 0
        self._go = go

    def __call__(self) -> str:
        self.count += 1
        self.began.release()
        self._go.wait()
        return "done"


async def fill(pool: Pool, call: Blocked, running: int, waiting: int) -> list[asyncio.Task[str]]:
    """Tasks that hold every thread of a pool, and its queue."""
    tasks = [asyncio.create_task(pool.run(call)) for _ in range(running + waiting)]
    await asyncio.sleep(0)  # each hands its call in
    for _ in range(running):
        call.began.acquire()
    return tasks


async def test_a_call_returns_raises_and_keeps_its_context() -> None:
    pool = Pool("test", 1, max_waiting=0)
    _NAME.set("mine")
    assert await pool.run(_NAME.get) == "mine"
    assert await pool.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)
    pool.close()


@pytest.mark.parametrize(("threads", "waiting"), [(1, 0), (1, 3), (3, 2)])
async def test_what_finds_no_room_is_refused_and_room_comes_back(
    threads: int, waiting: int, go: threading.Event
) -> None:
    pool = Pool("things", threads, max_waiting=waiting)
    call = Blocked(go)
    tasks = await fill(pool, call, threads, waiting)
    for _ in range(3):
        with pytest.raises(PoolFullError, match="too many things wait"):
            await pool.run(str)
    go.set()
    assert await asyncio.gather(*tasks) == ["done"] * (threads + waiting)
    assert call.count == threads + waiting
    for _ in range(2 * (threads + waiting)):
        assert await pool.run(str) == ""
    pool.close()


async def test_a_call_that_waited_too_long_never_runs(go: threading.Event) -> None:
    pool = Pool("things", 1, max_waiting=5, max_wait_seconds=0.0, full=StoreBusyError)
    holder, late = Blocked(go), Blocked(go)
    [holding] = await fill(pool, holder, 1, 0)
    for _ in range(20):
        with pytest.raises(StoreBusyError):
            await pool.run(late)
    go.set()
    assert await holding == "done", "one that runs is waited for, however long it takes"
    pool.close()
    assert late.count == 0


async def test_a_caller_that_leaves_takes_its_call_back(go: threading.Event) -> None:
    pool = Pool("things", 1, max_waiting=1)
    holder, late = Blocked(go), Blocked(go)
    [holding] = await fill(pool, holder, 1, 0)
    for _ in range(3):
        [waiting] = await fill(pool, late, 0, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    go.set()
    assert await holding == "done"
    pool.close()
    assert late.count == 0


async def test_no_pool_of_a_server_fills_another(go: threading.Event) -> None:
    pools = Pools.open()
    named = {
        name: getattr(pools, name)
        for name in ("quick", "reads", "writes", "bodies", "bulk", "jobs", "health")
    }
    tasks: list[asyncio.Task[str]] = []
    for name, pool in named.items():
        full: list[asyncio.Task[str]] = []
        while not any(task.done() for task in full):
            full.append(asyncio.create_task(pool.run(Blocked(go))))
            await asyncio.sleep(0)
        refused = full.pop().exception()
        assert isinstance(
            refused, PoolFullError if name in ("quick", "bodies", "bulk") else StoreBusyError
        )
        tasks += full
        free = list(named)[list(named).index(name) + 1 :]
        assert [await named[other].run(str) for other in free] == [""] * len(free)
    go.set()
    await asyncio.gather(*tasks)
    pools.close()
