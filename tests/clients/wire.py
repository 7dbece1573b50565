"""A server that answers from a script and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

__all__ = ["CHAT", "DIRECTION", "PROFILE", "Wire", "events"]

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
STEERING = {
    "profile": "cheerful",
    "version": 1,
    "fingerprint": "f",
    "applied": [{"operation": "add"}],
    "steered_tokens": {"prompt": 0, "generated": 2},
    "monitors": {},
}
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "tiny",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Gladly!", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": USAGE,
    "steering": STEERING,
}
DIRECTION: dict[str, Any] = {
    "object": "steering.direction",
    "name": "cheer",
    "version": 2,
    "kind": "vector",
    "site": "resid_post",
    "layers": [2],
    "width": 4,
    "norms": {"vector": 1.0},
    "sha256": "ab",
}
PROFILE: dict[str, Any] = {
    "object": "steering.profile",
    "name": "cheerful",
    "version": 1,
    "status": "published",
    "interventions": [{"operation": "add", "direction": "cheer@2"}],
    "max_strength": 1.5,
}


class _Bytes(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives in pieces and may break off."""

    def __init__(self, pieces: list[bytes], *, breaks: bool) -> None:
        self._pieces = pieces
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._breaks:
            raise httpx.RemoteProtocolError("peer closed connection")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def events(*documents: dict[str, Any] | str, breaks: bool = False) -> httpx.Response:
    """A stream of events, with a comment between, cut at odd places."""
    lines = [d if isinstance(d, str) else json.dumps(d) for d in documents]
    body = "".join(f": keep-alive\n\ndata: {line}\n\n" for line in lines).encode()
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    return httpx.Response(
        200,
        headers={"content-type": "text/event-stream"},
        stream=_Bytes(pieces, breaks=breaks),
    )


class Wire(httpx.MockTransport):
    """Answers requests in order from a script; the last answer repeats."""

    def __init__(self, *answers: httpx.Response | Exception | dict[str, Any]) -> None:
        super().__init__(self._answer)
        self.requests: list[httpx.Request] = []
        self._script = list(answers)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(200, json=answer) if isinstance(answer, dict) else answer

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]
