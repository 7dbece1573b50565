"""Readers that leave, or stay and take nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI

from .asgi_call import call
from .conftest import chat, connect
from .echo_engine import EchoEngine


async def test_silence_is_filled_with_comments(app: FastAPI, engine: EchoEngine) -> None:
    services = app.state.services
    app.state.services = replace(services, limits=replace(services.limits, keep_alive_seconds=0.01))
    engine.faults.gate, engine.faults.gate_from = asyncio.Event(), 1
    seen = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        bodies.append(message.get("body", b""))
        if message.get("body") == b": keep-alive\n\n":
            seen.set()

    bodies: list[bytes] = []
    serving = asyncio.create_task(call(app, chat("hi", stream=True), send, asyncio.Event()))
    await seen.wait()
    engine.faults.gate.set()
    await serving
    assert b"".join(bodies).endswith(b"data: [DONE]\n\n")


async def test_a_reader_that_takes_nothing_loses_its_stream(
    app: FastAPI, engine: EchoEngine
) -> None:
    services = app.state.services
    app.state.services = replace(
        services, limits=replace(services.limits, send_timeout_seconds=0.01)
    )
    sent: list[Any] = []

    async def send(message: dict[str, Any]) -> None:
        if len(sent) == 2:
            await asyncio.Event().wait()
        sent.append(message)

    await call(app, chat("hello", stream=True), send, asyncio.Event())
    assert not engine.running
    assert len(engine.aborted) == 1
    assert all(message.get("more_body", True) for message in sent), "ended as if it were whole"


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("gate_from", [0, 2])
async def test_a_client_that_leaves_frees_its_place(
    app: FastAPI, engine: EchoEngine, is_stream: bool, gate_from: int
) -> None:
    engine.faults.gate, engine.faults.gate_from = asyncio.Event(), gate_from
    left = asyncio.Event()
    serving = asyncio.create_task(call(app, chat("hello", n=2, stream=is_stream), _drop, left))
    await engine.has_running(2)
    left.set()
    await serving
    assert not engine.running
    assert len(engine.aborted) == 2
    async with connect(app) as client:
        metrics = (await client.get("/metrics")).text
    assert 'coxswain_requests_total{finish="abort"} 1.0' in metrics


async def test_200_random_leavers_leave_nothing_behind(app: FastAPI, engine: EchoEngine) -> None:
    tasks = []
    for index in range(200):
        left = asyncio.Event()
        body = chat("hello there", stream=bool(index % 2))
        tasks.append(asyncio.create_task(call(app, body, _drop, left)))
        for _ in range(index % 7):
            await asyncio.sleep(0)
        left.set()
    await asyncio.gather(*tasks)
    assert not engine.running
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert len(names) == 1, names


async def _drop(message: dict[str, Any]) -> None:
    await asyncio.sleep(0)
