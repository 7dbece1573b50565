"""A server as a process: sockets, signals, sudden death."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save

from server.app import create_app
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect
from .echo_engine import EchoEngine
from .server_process import ServerProcess

CHAT = "/v1/chat/completions"
DIRECTIONS = "/v1/steering/directions"


def upload() -> dict[str, Any]:
    """A file of 32 kB as the arguments of a request."""
    metadata = {"name": "big", "kind": "basis", "site": "resid_post", "layers": [1]}
    return {
        "files": {"file": ("f", save({"basis": torch.ones(1000, 8)}))},
        "data": {"metadata": json.dumps(metadata)},
    }


def lines(response: httpx.Response) -> Any:
    return (line for line in response.iter_lines() if line)


def check_broken_http(server: ServerProcess) -> None:
    """Bytes that are no HTTP, or a head beyond what is read at all, get the error body too."""
    long, end = b"y" * 300_000, b"host: localhost\r\nconnection: close\r\n\r\n"
    for head, status, code in (
        (b"nonsense\r\n\r\n", 400, "invalid_http"),
        (b"GET /" + long, 414, "url_too_long"),
        (b"GET /" + long[:100_000] + b" HTTP/1.1\r\n" + end, 414, "url_too_long"),
        (b"GET / HTTP/1.1\r\nx: " + long, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 60_000, 431, "headers_too_large"),
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head)
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
        first, _, body = reply.partition(b"\r\n\r\n")
        assert first.startswith(f"HTTP/1.1 {status} ".encode()), head[:40]
        assert json.loads(body)["error"]["code"] == code


def check_leaving(server: ServerProcess) -> None:
    """A client that leaves frees its place, and is counted."""
    with (
        httpx.Client(base_url=server.url) as client,
        client.stream("POST", CHAT, json=chat("hello", stream=True)) as stream,
    ):
        events = lines(stream)
        assert "assistant" in next(events)
        assert "coxswain_num_requests_running 1.0" in client.get("/metrics").text
    assert server.wait_for("generation")["finish"] == "abort"
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "coxswain_num_requests_running 0.0" in metrics
    assert 'coxswain_requests_total{finish="abort"} 1.0' in metrics


def check_draining(server: ServerProcess) -> None:
    """SIGTERM: not ready, nothing new, running streams finish, exit status 0."""
    client = httpx.Client(base_url=server.url)
    with client, client.stream("POST", CHAT, json=chat("hello", stream=True)) as stream:
        events = lines(stream)
        assert "assistant" in next(events)
        server.signal(signal.SIGTERM)
        server.wait_for("draining")
        with httpx.Client(base_url=server.url) as other:
            assert other.get("/health/ready").status_code == 503
            assert other.get("/health/live").status_code == 200
            refused = other.post(CHAT, json=chat())
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "server_is_overloaded"
        server.signal(signal.SIGUSR1)
        rest = list(events)
    assert rest[-1] == "data: [DONE]"
    assert server.wait() == 0


def test_a_process_over_its_life(tmp_path: Path) -> None:
    """One process for all, since starting one takes seconds."""
    with ServerProcess(str(tmp_path), "--gate") as server:
        check_broken_http(server)
        check_leaving(server)
        check_draining(server)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with ServerProcess(str(tmp_path), "--gate", "--drain", "600") as server:
        client = httpx.Client(base_url=server.url)
        with client, client.stream("POST", CHAT, json=chat("hello", stream=True)) as stream:
            events = lines(stream)
            next(events)
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            server.signal(signal.SIGTERM)
            with pytest.raises(httpx.TransportError):
                list(events)
        server.wait()


def test_an_engine_that_stops_ends_the_process_for_its_supervisor(tmp_path: Path) -> None:
    with ServerProcess(str(tmp_path)) as server:
        server.signal(signal.SIGUSR2)
        assert server.wait_for("not_live")["reason"] == "the engine has stopped"
        assert server.wait() == 1


async def test_death_in_an_upload_leaves_nothing_torn(tmp_path: Path) -> None:
    with ServerProcess(str(tmp_path), "--die-at", "replace") as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            with pytest.raises(httpx.TransportError):
                await client.post(DIRECTIONS, **upload())
        assert server.wait() == -signal.SIGKILL
    artifacts = tmp_path / "artifacts"
    assert [path.suffix for path in artifacts.iterdir() if path.is_file()] == [".tmp"]
    store = Store.open(tmp_path, load=load_direction_blob, low_water_bytes=0)
    try:
        assert store.verify().is_sound
        assert not [path for path in artifacts.iterdir() if path.is_file()]
        app = create_app(Settings(data_dir=tmp_path), EchoEngine(), store)  # type: ignore[arg-type]
        async with connect(app) as client:
            assert (await client.get(DIRECTIONS)).json()["data"] == []
            assert (await client.post(DIRECTIONS, **upload())).status_code == 201
    finally:
        store.close()
