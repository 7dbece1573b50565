"""A server over the echo engine, reached without a socket: what it steers is in upper case."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from coxswain_client import AsyncCoxswain
from coxswain_evals import LoadedSuite, load_suite
from server.app import create_app
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from tests.server.api.echo_engine import EchoEngine

UNIT = [1.0, 0, 0, 0, 0, 0, 0, 0]
DIRECTIONS: list[dict[str, Any]] = [
    {"name": "cheer", "kind": "vector", "tensors": {"vector": [3.0, 4.0, *UNIT[2:]]}},
    {
        "name": "map",
        "kind": "transport",
        "requires": ["restricted"],
        "tensors": {"basis": [UNIT], "offset": [0.5], "map": [UNIT[::-1]], "shift": UNIT[::-1]},
    },
    {"name": "plane", "kind": "basis", "tensors": {"basis": [UNIT, UNIT[::-1]]}},
]
PROFILES = {
    "loud": {"operation": "ablate", "direction": "cheer", "scope": {"tokens": "last_prompt"}},
    "cheerful": {"operation": "add", "direction": "cheer", "strength": 2.0},
}


class Counting(httpx.AsyncBaseTransport):
    """Passes requests on, counts them by path, and may break off."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.counts: dict[str, int] = {}
        self.breaks_after: int | None = None
        self.rewrite: Any = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.counts[path] = self.counts.get(path, 0) + 1
        chats = self.counts.get("/v1/chat/completions", 0)
        if self.breaks_after is not None and chats > self.breaks_after:
            raise httpx.ReadError("cut", request=request)
        response = await self._inner.handle_async_request(request)
        if self.rewrite is None or path != "/v1/chat/completions":
            return response
        document = json.loads(await response.aread())
        self.rewrite(document)
        return httpx.Response(200, json=document, request=request)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Counting]:
    store = Store.open(tmp_path / "data", load=load_direction_blob, low_water_bytes=0)
    app = create_app(Settings(data_dir=tmp_path / "data"), EchoEngine(), store)  # type: ignore[arg-type]
    yield Counting(httpx.ASGITransport(app, raise_app_exceptions=True))
    store.close()


@pytest.fixture
async def echo(wire: Counting) -> AsyncIterator[AsyncCoxswain]:
    """A client of the echo server with three directions and two profiles."""
    with structlog.testing.capture_logs():
        async with AsyncCoxswain("http://127.0.0.1", transport=wire, max_retries=0) as client:
            for direction in DIRECTIONS:
                await client.directions.create(site="resid_post", layers=[1], **direction)
            for name, intervention in PROFILES.items():
                await client.profiles.create(name, [intervention], publish=True)  # type: ignore[list-item]
            wire.counts.clear()
            yield client


SUITE: dict[str, Any] = {
    "name": "echoes",
    "max_tokens": 40,
    "datasets": {"ask": {"file": "ask.jsonl"}, "read": {"file": "read.jsonl", "kind": "text"}},
    "treatments": [{"name": "loud", "profile": "loud"}],
    "judges": {"sorry": {"kind": "keywords", "label": "refusal", "phrases": ["sorry"]}},
    "measures": [
        {"name": "refusal", "kind": "rate", "dataset": "ask", "judge": "sorry"},
        {"name": "topical", "kind": "topical", "dataset": "ask", "judge": "sorry"},
        {"name": "degenerate", "kind": "degenerate", "dataset": "ask"},
        {"name": "distinct", "kind": "distinct", "dataset": "ask"},
        {"name": "perplexity", "kind": "perplexity", "dataset": "read"},
    ],
}
PROMPTS = ("sorry about this", "hello there", "one fine day", "round and round and round and round")


def suite(folder: Path, **fields: Any) -> LoadedSuite:
    """A small suite, as written and read again."""
    asked = [
        {"id": f"p{i}", "prompt": text, "topic": [[text.split()[-1]]]}
        for i, text in enumerate(PROMPTS)
    ]
    (folder / "ask.jsonl").write_text("\n".join(map(json.dumps, asked)))
    texts = [{"id": "t0", "text": "abcdef"}, {"id": "t1", "prompt": "x", "continuation": "bd"}]
    (folder / "read.jsonl").write_text("\n".join(map(json.dumps, texts)))
    path = folder / "suite.yaml"
    path.write_text(json.dumps({**SUITE, **fields}))  # JSON is YAML
    return load_suite(path)
