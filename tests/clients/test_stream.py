"""Streams: events in order, faults as errors, nothing silently cut."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from coxswain_client import (
    APIConnectionError,
    APIStreamError,
    AsyncCoxswain,
    BadRequestError,
    ChatChunk,
    Coxswain,
)

from .wire import CHAT, Wire, events

_DONE = "[DONE]"
_FAULT = {"error": {"message": "shutting down", "code": "server_shutdown", "param": None}}


def _chunk(text: str | None, **more: Any) -> dict[str, Any]:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    return {"id": "chatcmpl-1", "choices": choices, **more}


_TEXT = [_chunk("Glad"), _chunk("ly!")]
_LAST = _chunk(None, usage=CHAT["usage"], steering=CHAT["steering"])


async def _read(wire: Wire, async_wire: Wire) -> list[ChatChunk]:
    """What both clients read, which must be the same."""
    with Coxswain(transport=wire) as client, client.stream_chat("Hi", model="t") as chunks:
        plain = list(chunks)
    async with (
        AsyncCoxswain(transport=async_wire) as async_client,
        async_client.stream_chat("Hi", model="t") as async_chunks,
    ):
        awaited = [chunk async for chunk in async_chunks]
    assert plain == awaited
    return plain


async def test_events_arrive_in_order() -> None:
    script = (*_TEXT, _LAST, _DONE)
    chunks = await _read(Wire(events(*script)), Wire(events(*script)))
    assert "".join(chunk.text for chunk in chunks) == "Gladly!"
    assert chunks[-1].steering is not None
    assert chunks[-1].steering.profile == "cheerful"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
async def test_lines_end_and_events_are_kept_alive_as_the_standard_says(end: str) -> None:
    """A blank line after an event with an id is no event; U+2028 in a text ends no line."""
    separated = _chunk("Gla\u2028d")
    lines = ["id: 1", f"data: {json.dumps(separated, ensure_ascii=False)}", "", ": keep-alive", ""]
    lines += ["event: chunk", f"data: {json.dumps(_chunk('ly!'))}", "", "data: [DONE]", "", ""]

    def wire() -> Wire:
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        return Wire(httpx.Response(200, headers=headers, content=end.join(lines).encode()))

    chunks = await _read(wire(), wire())
    assert [chunk.text for chunk in chunks] == ["Gla\u2028d", "ly!"]


def test_an_answer_that_is_no_stream_is_said_to_be_none() -> None:
    wire = Wire(httpx.Response(200, html="<p>Welcome!</p>"))
    with (
        Coxswain(transport=wire).stream_chat("Hi", model="t") as chunks,
        pytest.raises(APIConnectionError, match=r"no stream: .*'text/html'"),
    ):
        list(chunks)


def test_a_stream_asks_for_usage() -> None:
    wire = Wire(events(_DONE))
    with Coxswain(transport=wire).stream_chat("Hi", model="t", profile="p") as chunks:
        assert list(chunks) == []
    assert wire.bodies[0]["stream"] is True
    assert wire.bodies[0]["stream_options"] == {"include_usage": True}
    assert wire.bodies[0]["steering"] == {"profile": "p"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: events(*_TEXT, _FAULT), APIStreamError),
        (lambda: events(*_TEXT), APIConnectionError),
        (lambda: events(*_TEXT, breaks=True), APIConnectionError),
    ],
    ids=["fault", "ends without closing event", "breaks off"],
)
async def test_what_came_before_a_fault_is_kept(answer: Any, error: type[Exception]) -> None:
    texts: list[str] = []
    stream = Coxswain(transport=Wire(answer())).stream_chat("Hi", model="t")
    with stream, pytest.raises(error):
        texts.extend(chunk.text for chunk in stream)
    assert texts == ["Glad", "ly!"]


def test_a_fault_names_its_code() -> None:
    stream = Coxswain(transport=Wire(events(_FAULT))).stream_chat("Hi", model="t")
    with stream as chunks, pytest.raises(APIStreamError, match="shutting down") as caught:
        list(chunks)
    assert caught.value.code == "server_shutdown"


async def test_a_refused_stream_raises_on_entering() -> None:
    body = {"error": {"message": "bad", "param": "top_p", "code": "invalid_sampling"}}

    def wire() -> Wire:
        return Wire(httpx.Response(400, json=body))

    with pytest.raises(BadRequestError, match="bad"):
        Coxswain(transport=wire()).stream_chat("Hi", model="t").__enter__()
    with pytest.raises(BadRequestError, match="bad"):
        await AsyncCoxswain(transport=wire()).stream_chat("Hi", model="t").__aenter__()


@pytest.mark.parametrize("script", [[*_TEXT, _FAULT], _TEXT], ids=["fault", "cut"])
async def test_faults_reach_asyncio_too(script: list[dict[str, Any]]) -> None:
    stream = AsyncCoxswain(transport=Wire(events(*script))).stream_chat("Hi", model="t")
    async with stream:
        with pytest.raises((APIStreamError, APIConnectionError)):
            [chunk async for chunk in stream]
