"""Running the application under uvicorn: start, drain, stop."""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import gc
import signal
import socket
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI

from .api.deps import Services
from .api.http.protocol import bounded_protocol

_MAX_EVENT_BYTES: Final = 256 * 1024  # beyond it 400; the application refuses far smaller heads
_CLOSE_SECONDS: Final = 5
_WATCH_SECONDS: Final = 1.0
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_log = structlog.get_logger(__name__)


class StartError(ValueError):
    """Settings that are valid, but that this machine cannot serve with now."""


@dataclass(frozen=True, slots=True)
class Binding:
    """How an application is served.

    Attributes:
        max_connections: Open connections; more get 503.
        drain_timeout_seconds: Time running requests have to finish.
    """

    max_connections: int
    drain_timeout_seconds: float

    def config(self, app: FastAPI) -> uvicorn.Config:
        """The configuration of uvicorn for an application."""
        return uvicorn.Config(
            app,
            http=bounded_protocol(self.max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_CLOSE_SECONDS,
            h11_max_incomplete_event_size=_MAX_EVENT_BYTES,
        )


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address that `host` stands for, to be listened on later.

    No other server can take the port from then on, while who connects is refused at once rather
    than kept waiting for a model to load.

    Args:
        host: An address, or a name of this machine's.
        port: 0 takes a free one.

    Raises:
        StartError: There is no such address here, or its port is in use or not allowed.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise StartError(
            f"host is {host!r}, which is neither an address nor a name that can be looked up: "
            f"{error}"
        ) from error
    bound: list[socket.socket] = []
    elsewhere = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            bound.append(_bound(family, kind, protocol, address))
        except OSError as error:
            elsewhere = error
            if error.errno in _NOT_HERE:  # a name may stand for IPv6 where there is none
                continue
            for sock in bound:
                sock.close()
            raise StartError(_bind_failure(host, port, error)) from error
    if not bound:
        assert elsewhere is not None, "an address that is neither bound nor refused"
        raise StartError(_bind_failure(host, port, elsewhere)) from elsewhere
    return bound


def _bound(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(address)  # alone: with SO_REUSEADDR two could bind, until one listens
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # perhaps only by what lingers of an earlier server's connections
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # nor may the next do so
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_failure(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host!r} is in use; stop what listens there, or set another port"
    if error.errno == errno.EACCES:
        return f"port {port} of {host!r} needs privileges; set one from 1024 on"
    return f"host is {host!r}, which cannot be bound on this machine: {error.strerror}"


class DrainingServer(uvicorn.Server):
    """Stops in order: not ready, jobs are interrupted, running requests finish, sockets close.

    The first SIGTERM or SIGINT begins it; a second one ends the process at once. An engine that
    stops or hangs ends it too: nothing here can repair that, a fresh process can.

    Attributes:
        failure: Why the engine made it stop, or None.
    """

    def __init__(self, app: FastAPI, services: Services, binding: Binding) -> None:
        super().__init__(binding.config(app))
        self._services = services
        self._drain_seconds = binding.drain_timeout_seconds
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: str | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on bound sockets until stopped."""
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()
            await self._services.jobs.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, begin with the jobs that wait, and say where."""
        for sock in sockets or ():  # so that what lingers of it will not keep the next from binding
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await super().startup(sockets)
        # What is loaded stays: a full collection that looked through it would hold up every stream.
        gc.collect()
        gc.freeze()
        await self._services.jobs.start()
        info = self._services.engine.info()
        bound = [sock.getsockname() for server in self.servers for sock in server.sockets]
        _log.info(
            "serving",
            addresses=[f"http://{_in_url(host)}:{port}" for host, port, *_ in bound],
            model=info.model_name,
            device=info.device,
            dtype=info.dtype,
            max_model_len=info.max_model_len,
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; uvicorn's own way would close running streams first."""
        del frame
        assert self._loop is not None, "a signal before the server runs"
        if self._services.lifecycle.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._services.lifecycle.begin_drain()
        self._loop.call_soon_threadsafe(self._start_drain, signal.Signals(sig).name)

    async def _watch(self) -> None:
        # A heartbeat is what does not happen: there is no event to wait for.
        # Seen twice: when a process that was stopped goes on, as in a paused container, the first
        # look finds a heartbeat as old as the pause.
        before = None
        while (reason := self._services.lifecycle.why_not_live()) is None or before is None:
            before = reason
            await asyncio.sleep(_WATCH_SECONDS)
        self.failure = reason
        _log.critical("not_live", reason=reason)
        faulthandler.dump_traceback(all_threads=True)
        self.should_exit = True

    def _start_drain(self, reason: str) -> None:
        self._drain = asyncio.create_task(self._stop(reason))

    async def _stop(self, reason: str) -> None:
        _log.info("draining", reason=reason, seconds=self._drain_seconds)
        try:
            await self._services.jobs.stop()
            await self._services.engine.drain(self._drain_seconds)
        finally:
            self.should_exit = True


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
