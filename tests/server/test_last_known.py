"""What the store said last stands for a while: never longer, and never against what it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.last_known import LastKnown, Terms
from server.pools import Pool
from server.store.errors import KeyNotFoundError, StoreUnavailableError

TERMS = Terms(fresh=2.0, patience=0.0, stale=60.0)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.0, 30.0, 61.0])),
        st.tuples(st.just("store"), st.sampled_from(["up", "down"])),
        st.tuples(st.just("change"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("remove"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("forget"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("get"), st.sampled_from(["a", "b"])),
    ),
    max_size=40,
)


class Source:
    """A store of numbers under names, which counts how often it is asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.values: dict[str, int] = {"a": 0, "b": 1}
        self.history: dict[str, list[tuple[float, int | None]]] = {
            name: [(self.now, value)] for name, value in self.values.items()
        }
        self.is_up = True
        self.count = 0
        self._next = 2

    def ask(self, name: str) -> int:
        self.count += 1
        if not self.is_up:
            raise StoreUnavailableError("down")
        if name not in self.values:
            raise KeyNotFoundError(name)
        return self.values[name]

    def change(self, name: str) -> None:
        self.values[name], self._next = self._next, self._next + 1
        self.history[name].append((self.now, self.values[name]))

    def remove(self, name: str) -> None:
        self.values.pop(name, None)
        self.history[name].append((self.now, None))

    def within(self, name: str, seconds: float) -> set[int | None]:
        """Every value it had in the last `seconds`."""
        held = self.history[name]
        last_before = [value for at, value in held if at <= self.now - seconds][-1:]
        return {value for at, value in held if at > self.now - seconds} | set(last_before)


class AtOnce(Pool):
    """Answers without a thread, and so within a patience of 0."""

    def __init__(self) -> None:
        super().__init__("test", 1, max_waiting=0)

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


def open_known(source: Source, limit: int = 8) -> tuple[Pool, LastKnown[str, int]]:
    pool = Pool("test", 1, max_waiting=8)
    return pool, LastKnown(pool, terms=TERMS, limit=limit, clock=lambda: source.now)


@given(STEPS)
def test_an_answer_is_never_older_than_it_may_be(steps: list[tuple[str, float | str]]) -> None:
    async def run() -> None:
        source = Source()
        known = LastKnown[str, int](AtOnce(), terms=TERMS, clock=lambda: source.now)
        for step, what in steps:
            name = str(what)
            if step == "wait":
                source.now += float(what)
            elif step == "store":
                source.is_up = what == "up"
            elif step == "change":
                source.change(name)
            elif step == "remove":
                source.remove(name)
            elif step == "forget":
                known.forget(lambda value, name=name: value in {v for _, v in source.history[name]})
                source.history[name] = [(source.now, source.values.get(name))]
            else:
                allowed = source.within(name, TERMS.fresh if source.is_up else TERMS.stale)
                try:
                    answer = await known.get(name, lambda name=name: source.ask(name))
                except KeyNotFoundError:
                    assert source.is_up
                    assert name not in source.values
                except StoreUnavailableError:
                    assert not source.is_up
                else:
                    assert answer in allowed

    asyncio.run(run())


async def test_while_it_is_fresh_nobody_asks_and_then_one_does() -> None:
    source = Source()
    pool, known = open_known(source)
    for _ in range(5):
        assert await known.get("a", lambda: source.ask("a")) == 0
    assert source.count == 1
    source.now += TERMS.stale
    asked = [known.get("a", lambda: source.ask("a")) for _ in range(5)]
    assert await asyncio.gather(*asked) == [0] * 5
    assert source.count == 2
    pool.close()


async def test_a_silent_store_holds_up_only_who_is_not_known() -> None:
    source = Source()
    pool, known = open_known(source)
    assert await known.get("a", lambda: source.ask("a")) == 0
    source.now += TERMS.fresh
    go = threading.Event()

    def silent(name: str) -> int:
        go.wait()
        return source.ask(name)

    source.change("a")
    for _ in range(3):
        assert await known.get("a", lambda: silent("a")) == 0
    unknown = asyncio.create_task(known.get("b", lambda: silent("b")))
    await asyncio.sleep(0)
    assert not unknown.done()
    source.now += TERMS.stale
    too_old = asyncio.create_task(known.get("a", lambda: silent("a")))
    await asyncio.sleep(0)
    assert not too_old.done(), "at last it waits, rather than give what is too old"
    go.set()
    assert await unknown == 1
    assert await too_old == source.values["a"]
    assert source.count == 3, "asked once by all who waited"
    pool.close()


async def test_what_is_forgotten_while_it_is_asked_for_is_not_remembered() -> None:
    source = Source()
    pool, known = open_known(source)
    began, go = threading.Event(), threading.Event()

    def slow() -> int:
        value = source.ask("a")
        began.set()
        go.wait()
        return value

    before = asyncio.create_task(known.get("a", slow))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    began.wait()
    source.remove("a")
    known.forget(lambda value: value == 0)
    go.set()
    assert await before == 0, "it began before"
    with pytest.raises(KeyNotFoundError):
        await known.get("a", lambda: source.ask("a"))
    pool.close()


async def test_no_more_is_kept_than_the_limit() -> None:
    source = Source()
    source.values = {str(index): index for index in range(20)}
    pool, known = open_known(source, limit=4)
    for name in ("0", "1", "2", "3", "0", "4"):
        await known.get(name, lambda name=name: source.ask(name))
    assert source.count == 5
    assert await known.get("0", lambda: source.ask("0")) == 0
    assert source.count == 5, "used more lately than 1"
    assert await known.get("1", lambda: source.ask("1")) == 1
    assert source.count == 6
    pool.close()
