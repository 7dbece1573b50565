"""A server on a real socket of loopback, in a thread, for clients others wrote."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from server.app import create_app
from server.engine.engine import Engine
from server.resolver.library import load_direction_blob
from server.serve import Binding, DrainingServer, bind
from server.settings import Settings
from server.store import Store
from tests.server.api.conftest import profile, vector
from tests.server.api.echo_engine import EchoEngine


class Served:
    """A server thread; knows when it listens and ends when told."""

    def __init__(self, settings: Settings, engine: Engine, store: Store) -> None:
        app = create_app(settings, engine, store)
        binding = Binding(max_connections=64, drain_timeout_seconds=5.0)
        self.engine: Any = engine
        self.url = ""
        self._is_bound = threading.Event()
        self._server = _Announcing(app, app.state.services, binding)
        self._server.announce = self._announce
        sockets = bind("127.0.0.1", 0)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets)))
        self._thread.start()
        assert self._is_bound.wait(60)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def _announce(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._is_bound.set()


class _Announcing(DrainingServer):
    announce = staticmethod(lambda port: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.announce(self.servers[0].sockets[0].getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    engine: Any = EchoEngine()
    with serving(tmp_path_factory.mktemp("contract"), engine) as server:
        for path, body in (("directions", vector()), ("profiles", profile())):
            httpx.post(f"{server.url}/v1/steering/{path}", json=body).raise_for_status()
        yield server


@contextmanager
def serving(folder: Path, engine: Engine) -> Iterator[Served]:
    """A server over `engine` with an empty store."""
    store = Store.open(folder, load=load_direction_blob, low_water_bytes=0)
    with structlog.testing.capture_logs():
        server = Served(Settings(data_dir=folder), engine, store)
        yield server
        server.close()
    store.close()
