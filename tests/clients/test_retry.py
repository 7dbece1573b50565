"""What is sent again, how often, and after how long."""

from __future__ import annotations

import asyncio
import contextlib
import time

import httpx
import pytest

from coxswain_client import (
    APIConnectionError,
    AsyncCoxswain,
    ConflictError,
    Coxswain,
    RateLimitError,
    ServerError,
)
from coxswain_client.models.registry import Direction

from .wire import CHAT, DIRECTION, Wire


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds slept, without sleeping."""
    slept: list[float] = []

    async def nap(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(asyncio, "sleep", nap)
    return slept


def _busy(status: int = 429, after: str | None = "7") -> httpx.Response:
    return httpx.Response(status, headers={} if after is None else {"retry-after": after})


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_retry_after_is_honoured(status: int, naps: list[float]) -> None:
    wire, async_wire = Wire(_busy(status), CHAT), Wire(_busy(status), CHAT)
    assert Coxswain(transport=wire).chat("Hi", model="t").text == "Gladly!"
    answer = await AsyncCoxswain(transport=async_wire).chat("Hi", model="t")
    assert answer.text == "Gladly!"
    assert naps == [7.0, 7.0]
    assert wire.bodies[0] == wire.bodies[1] == async_wire.bodies[1]


def test_without_retry_after_the_wait_grows(naps: list[float]) -> None:
    wire = Wire(_busy(503, None), _busy(503, None), CHAT)
    Coxswain(transport=wire).chat("Hi", model="t")
    assert len(naps) == 2
    assert 0 <= naps[0] <= 1.0
    assert 0 <= naps[1] <= 2.0


def test_a_connection_that_fails_is_tried_again(naps: list[float]) -> None:
    wire = Wire(httpx.ConnectError("refused"), CHAT)
    assert Coxswain(transport=wire).chat("Hi", model="t").text == "Gladly!"
    assert len(naps) == 1


def test_patience_ends(naps: list[float]) -> None:
    wire = Wire(_busy())
    with pytest.raises(RateLimitError):
        Coxswain(transport=wire, max_retries=3).chat("Hi", model="t")
    assert len(wire.requests) == 4


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500])
def test_what_would_fail_again_is_not_sent_again(status: int, naps: list[float]) -> None:
    wire = Wire(httpx.Response(status))
    with pytest.raises(Exception, match=str(status)):
        Coxswain(transport=wire).chat("Hi", model="t")
    assert len(wire.requests) == 1
    assert naps == []


def test_a_request_that_may_have_run_is_not_sent_again(naps: list[float]) -> None:
    wire = Wire(httpx.ReadError("reset"))
    with pytest.raises(APIConnectionError):
        Coxswain(transport=wire).chat("Hi", model="t")
    assert len(wire.requests) == 1


def test_no_retries_if_so_asked() -> None:
    wire = Wire(_busy(503))
    with pytest.raises(ServerError):
        Coxswain(transport=wire, max_retries=0).chat("Hi", model="t")
    assert len(wire.requests) == 1


async def test_a_probe_asks_once(naps: list[float]) -> None:
    for status in (200, 503):
        wire, async_wire = Wire(_busy(status), CHAT), Wire(_busy(status), CHAT)
        assert Coxswain(transport=wire).is_ready() is (status == 200)
        assert await AsyncCoxswain(transport=async_wire).is_ready() is (status == 200)
        assert len(wire.requests) == len(async_wire.requests) == 1
    assert naps == []


@pytest.mark.parametrize(
    ("status", "again"), [(429, True), (503, True), (502, False), (504, False)]
)
def test_a_deletion_that_may_have_been_done_is_not_sent_again(
    status: int, again: bool, naps: list[float]
) -> None:
    wire = Wire(_busy(status), {"object": "x", "name": "cheer", "versions": [1]})
    with contextlib.nullcontext() if again else pytest.raises(ServerError):
        Coxswain(transport=wire).directions.delete("cheer")
    assert len(wire.requests) == 1 + again


def test_a_request_still_in_progress_is_asked_for_again_under_its_key(naps: list[float]) -> None:
    pending = httpx.Response(409, headers={"retry-after": "1", "x-should-retry": "true"})
    wire = Wire(pending, pending, DIRECTION)
    assert _create(Coxswain(transport=wire)).version == 2
    assert naps == [1.0, 1.0]
    assert len({request.headers["idempotency-key"] for request in wire.requests}) == 1
    wire = Wire(pending)
    with pytest.raises(ConflictError):
        _create(Coxswain(transport=wire))
    assert len(wire.requests) == 3


def test_every_call_has_a_key_of_its_own() -> None:
    wire = Wire(DIRECTION)
    client = Coxswain(transport=wire)
    _create(client)
    _create(client)
    assert len({request.headers["idempotency-key"] for request in wire.requests}) == 2


def _create(client: Coxswain) -> Direction:
    return client.directions.create(
        name="cheer", kind="vector", site="resid_post", layers=[1], tensors={"vector": [1.0]}
    )
