"""Per-key limits: the bound in every minute, on a monotonic clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth.permissions import LOCAL_USER, Allowance, Principal, RateLimitedError
from server.auth.rate_limit import RateLimiter


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def caller(limit: int | None, key_id: str = "AbCd1234") -> Principal:
    return Principal(key_id, "app", frozenset(), requests_per_minute=limit)


def passes(limiter: RateLimiter, principal: Principal) -> bool:
    try:
        limiter.admit(principal)
    except RateLimitedError:
        return False
    return True


@given(
    limit=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 30, allow_subnormal=False), min_size=1, max_size=120),
)
def test_the_burst_and_the_rate_are_bounded(limit: int, gaps: list[float]) -> None:
    """Over any span of s seconds at most n + n s / 60 requests pass, and an idle minute frees n."""
    ticks = Ticks()
    limiter, principal = RateLimiter(ticks), caller(limit)
    passed: list[float] = []
    for gap in gaps:
        ticks.now += gap
        if passes(limiter, principal):
            passed.append(ticks.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            seconds = passed[last] - passed[first]
            assert last - first + 1 <= limit + limit * seconds / 60 + 1e-3
    ticks.now += 60
    assert all(passes(limiter, principal) for _ in range(limit))
    assert not passes(limiter, principal)


@pytest.mark.parametrize("limit", [1, 3, 7, 60, 1000])
def test_the_whole_limit_passes_at_once_and_no_more(limit: int) -> None:
    limiter = RateLimiter(Ticks())
    left = [limiter.admit(caller(limit)) for _ in range(limit)]
    assert [a.remaining for a in left if a] == list(range(limit - 1, -1, -1))
    assert not passes(limiter, caller(limit))


def test_waiting_as_told_is_enough() -> None:
    ticks = Ticks()
    limiter, principal = RateLimiter(ticks), caller(4)
    for _ in range(4):
        limiter.admit(principal)
    with pytest.raises(RateLimitedError) as caught:
        limiter.admit(principal)
    assert caught.value.retry_after_seconds == 15
    ticks.now += 14.9
    assert not passes(limiter, principal)
    ticks.now += 0.1
    assert passes(limiter, principal)


def test_keys_do_not_share_a_limit() -> None:
    limiter = RateLimiter(Ticks())
    assert passes(limiter, caller(1, "AbCd1234"))
    assert passes(limiter, caller(1, "AbCd1235"))
    assert not passes(limiter, caller(1, "AbCd1234"))


def test_who_has_no_limit_is_not_counted() -> None:
    limiter = RateLimiter(Ticks())
    assert [limiter.admit(caller(None)) for _ in range(9)] == [None] * 9
    assert limiter.admit(LOCAL_USER) is None


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, principal = RateLimiter(), caller(1)
    assert isinstance(limiter.admit(principal), Allowance)
    for years in (-10, 10):
        now = time.time() + years * 365 * 86400
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert not passes(limiter, principal)
