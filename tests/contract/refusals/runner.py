"""Every spoiled document sent to an application over the echo engine, and what it answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from fastapi import FastAPI

from server.app import create_app
from server.engine.errors import EngineDrainingError
from server.engine.outputs import CaptureResult, ScoreResult
from server.engine.request import CaptureRequest, ScoreRequest
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from steering.directions import Direction, DirectionKind
from steering.documents import Region
from steering.errors import short_repr
from steering.formats import dump_direction
from steering.sites import Site
from tests.server.api.byte_tokenizer import VOCAB_SIZE, ByteTokenizer
from tests.server.api.echo_engine import EchoEngine

from .spoil import VALUES, spoiled, write_place
from .stored import STORED, Case

__all__ = [
    "ACCEPTED",
    "TABLE",
    "Answer",
    "Rows",
    "answers_of",
    "application",
    "read_table",
    "write_table",
]

TABLE: Final = Path(__file__).with_name("table.jsonl")
ACCEPTED: Final = "accepted"

Answer = str | tuple[int, str, str, str | None, str]
"""`accepted`, or status, code, type, param and message of a refusal."""

Rows = dict[tuple[str, str], Answer]
"""By place and by what stands there."""

_UNREADABLE: Final = (
    *("", "[]", "3", "null", "{", '{"a": NaN}', '{"a": 1e400}', f'{{"a": {"9" * 70}}}'),
    *('{"a": 1, "a": 2}', '{"a": "\\ud800"}', '{"a": "\\u0000"}', "[" * 70, '{"a": ' * 70),
)
"""Bodies that are no document at all."""


class _Tracker:
    def advance(self, token_id: int) -> int:
        del token_id
        return int(Region.ASSISTANT)


class _Tokenizer(ByteTokenizer):
    vocab_size = VOCAB_SIZE
    thinking_ids = (60, 62)
    thinking_markers = ("<think>", "</think>")

    def region_tracker(self, token_ids: Sequence[int], regions: bytes) -> _Tracker:
        del token_ids, regions
        return _Tracker()


class _Engine(EchoEngine):
    """Refuses what takes a model: a request that comes so far has passed every check."""

    _tokenizer: ByteTokenizer

    def __init__(self) -> None:
        super().__init__()
        self._tokenizer = _Tokenizer()

    async def capture(self, request: CaptureRequest) -> CaptureResult:
        raise EngineDrainingError("the engine was reached")

    async def score(self, request: ScoreRequest) -> ScoreResult:
        raise EngineDrainingError("the engine was reached")


async def answers_of(case: Case, folder: Path) -> Rows:
    """What an application of its own answers to each spoiled copy of a case's document."""
    rows: Rows = {}
    async with application(folder) as app:
        whole = json.dumps(case.document)
        rows["", "as it stands"] = await _ask(app, case, whole)
        for path, what, text in _bodies(case):
            rows[path, what] = _without_value(await _ask(app, case, text), what)
    return rows


def _without_value(answer: Answer, what: str) -> Answer:
    """The same answer where the message shows the value as such, so that the table is short."""
    if isinstance(answer, str) or what not in VALUES:
        return answer
    *head, message = answer
    got = re.escape(short_repr(json.loads(VALUES[what])))
    return (*head, re.sub(rf"\b(is|contains) {got}(?=[;,])", r"\1 {got}", message))  # type: ignore[return-value]


def _bodies(case: Case) -> Iterator[tuple[str, str, str]]:
    document = dict(case.document)
    yield from spoiled(document, case.below, case.skip)
    for name in case.beside:
        beside = json.loads(json.dumps(document))
        target: Any = beside
        for step in case.below:
            target = target[step]
        if name not in target:
            target[name] = 1.0
            yield write_place((*case.below, name)), "beside", json.dumps(beside)
    if not case.below:
        for text in _UNREADABLE:
            yield "", text if len(text) < 40 else f"{text[:12]}...", text


@asynccontextmanager
async def application(folder: Path) -> AsyncIterator[FastAPI]:
    store = Store.open(folder, load=load_direction_blob, low_water_bytes=0)
    settings = Settings(data_dir=folder, max_queued_jobs=10**6)
    try:
        with structlog.testing.capture_logs():
            app = create_app(settings, _Engine(), store)  # type: ignore[arg-type]
            for collection, document in STORED:
                path = f"/v1/steering/{collection}"
                answer = await _ask(app, Case("", path, document), json.dumps(document))
                assert answer == ACCEPTED, answer
            yield app
            app.state.services.pools.close()
    finally:
        store.close()


async def _ask(app: FastAPI, case: Case, text: str) -> Answer:
    content, media_type = text.encode(), "application/json"
    if case.is_form:
        content, media_type = _form(text)
    status, body = await _send(app, case, content, media_type)
    if status < 300:
        return ACCEPTED
    error = json.loads(body)["error"]
    return status, error["code"], error["type"], error["param"], error["message"]


async def _send(app: FastAPI, case: Case, content: bytes, media_type: str) -> tuple[int, bytes]:
    sent: list[Any] = [{"type": "http.request", "body": content, "more_body": False}]
    status, parts = 0, []

    async def receive() -> Any:
        return sent.pop() if sent else await _never()

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        parts.append(message.get("body", b""))

    headers = [(b"host", b"127.0.0.1"), (b"content-type", media_type.encode())]
    scope = {
        "type": "http",
        "method": case.method,
        "path": case.path,
        "raw_path": case.path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return status, b"".join(parts)


async def _never() -> Any:
    await asyncio.Event().wait()


def _form(metadata: str) -> tuple[bytes, str]:
    direction = Direction(
        "new", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.eye(8)[0]}
    )
    parts = [
        (b'name="file"; filename="a"\r\ncontent-type: application/octet-stream', None),
        (b'name="metadata"', metadata.encode()),
    ]
    body = b""
    for head, content in parts:
        data = dump_direction(direction) if content is None else content
        body += b"--part\r\ncontent-disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n"
    return body + b"--part--\r\n", "multipart/form-data; boundary=part"


def read_table() -> dict[str, Rows]:
    """The recorded rows by case."""
    table: dict[str, Rows] = {}
    rows: Rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if isinstance(entry, str):
            rows = table[entry] = {}
            continue
        place, *groups = entry
        for answer, *whats in groups:
            for what in whats:
                rows[place, what] = answer if isinstance(answer, str) else tuple(answer)
    return table


def write_table(table: dict[str, Rows]) -> None:
    """Write each case's name, then a line for each place: answers, and what gets each of them."""
    lines: list[Any] = []
    for case, rows in table.items():
        lines.append(case)
        by_place: dict[str, dict[Answer, list[str]]] = {}
        for (place, what), answer in rows.items():
            by_place.setdefault(place, {}).setdefault(answer, []).append(what)
        lines += [
            [place, *([answer, *whats] for answer, whats in groups.items())]
            for place, groups in by_place.items()
        ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    TABLE.write_text(text, encoding="utf-8")
