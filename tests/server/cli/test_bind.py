"""Taking a port: at once, from everybody, and again right after a server that had it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from server.serve import StartError, bind


@contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(sock) for sock in bind(host, port)]


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def listen(sock: socket.socket) -> None:
    """As `DrainingServer.startup` does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.listen()


@pytest.mark.parametrize("is_listening", [False, True])
@pytest.mark.parametrize("reuse", [0, 1])
def test_a_port_that_is_taken_is_refused(is_listening: bool, reuse: int) -> None:
    """Also by a server that loads its model and does not listen yet."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse and is_listening)
        taken.bind(("127.0.0.1", 0))
        if is_listening:
            taken.listen()
        with pytest.raises(StartError, match=f"port {port_of(taken)} of '127.0.0.1' is in use"):
            bind("127.0.0.1", port_of(taken))


def test_two_servers_cannot_take_one_port() -> None:
    with bound("127.0.0.1") as [first], pytest.raises(StartError, match="in use"):
        bind("127.0.0.1", port_of(first))


def test_who_connects_before_there_is_a_model_is_refused() -> None:
    with bound("127.0.0.1") as [sock], pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(sock)))


def test_a_port_can_be_taken_again_while_old_connections_linger() -> None:
    with bound("127.0.0.1") as [sock]:
        port = port_of(sock)
        listen(sock)
        with socket.create_connection(("127.0.0.1", port)) as client:
            answered, _ = sock.accept()
            answered.close()  # the server's end is first, and so the one that lingers
            assert client.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))  # it does linger
    with bound("127.0.0.1", port) as [again]:
        with pytest.raises(StartError, match="in use"):  # two that start at once are told apart
            bind("127.0.0.1", port)
        listen(again)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_and_ipv4_are_apart() -> None:
    with bound("::1") as [six], bound("127.0.0.1", port_of(six)) as [four]:
        assert (six.family, four.family) == (socket.AF_INET6, socket.AF_INET)


def test_a_name_is_bound_at_the_addresses_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    here = (socket.AF_INET, *stream, ("127.0.0.1", 0))
    elsewhere = (socket.AF_INET, *stream, ("192.0.2.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [elsewhere, here, here])
    with bound("both") as [sock]:
        assert sock.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [elsewhere])
    with pytest.raises(StartError, match="host is 'elsewhere', which cannot be bound"):
        bind("elsewhere", 0)


def test_a_port_that_needs_privileges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(StartError, match=r"port 80 of '127.0.0.1' needs privileges"):
        bind("127.0.0.1", 80)
