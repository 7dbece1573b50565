"""Connections that take without giving."""

from __future__ import annotations

import json
import select
import socket

import pytest

from server.api.http.protocol import BoundedProtocol

from .conftest import Served


def connect(server: Served) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: local"])
def test_a_head_that_does_not_come_ends_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_timeout_seconds", 0.05)
    with connect(served) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""


def test_a_body_that_goes_on_after_its_answer_ends_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would be, and however often a piece of it comes."""
    monkeypatch.setattr(BoundedProtocol, "head_timeout_seconds", 0.05)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: else\r\ntransfer-encoding: chunked\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(head)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 400 ")
        is_closed = False
        for _ in range(1000):
            connection.sendall(b"1\r\n[\r\n")
            if is_closed := bool(select.select([connection], [], [], 0.01)[0]):
                break
        assert is_closed


def test_connections_beyond_the_limit_are_told_to_come_back(served: Served) -> None:
    held = [connect(served) for _ in range(64)]
    try:
        with connect(served) as one_more:
            reply = b"".join(iter(lambda: one_more.recv(65536), b""))
    finally:
        for connection in held:
            connection.close()
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head.lower()
    assert json.loads(body)["error"]["code"] == "server_is_overloaded"
