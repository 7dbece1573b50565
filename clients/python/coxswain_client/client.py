"""The clients: one for plain code, one for asyncio, with the same operations."""

from __future__ import annotations

from typing import Self

import httpx

from .resources.analysis import Analysis
from .resources.generation import Generation
from .resources.jobs import AsyncJobs, Jobs
from .resources.registry import Aliases, Directions, Profiles
from .resources.server import Audit, Keys, ServerInfo
from .sender import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, AsyncSender, Connection, Sender

DEFAULT_BASE_URL = "http://127.0.0.1:8000"


class Coxswain(Generation[Sender], ServerInfo[Sender]):
    """A client of one server.

        with Coxswain() as client:
            print(client.chat("How do I repair a bicycle?", profile="cheerful").text)

    Args:
        base_url: Address of the server, with or without `/v1`.
        api_key: Bearer token; None sends none.
        timeout_seconds: Longest silence of the server.
        max_retries: Times a refused or unconnected request is sent again.
        transport: How requests travel; None means HTTP.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        *,
        api_key: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = DEFAULT_MAX_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        connection = Connection(base_url, api_key, timeout_seconds, max_retries)
        super().__init__(Sender(connection, transport))
        self.directions = Directions(self._sender)
        self.profiles = Profiles(self._sender)
        self.aliases = Aliases(self._sender)
        self.jobs = Jobs(self._sender)
        self.keys = Keys(self._sender)
        self.audit = Audit(self._sender)
        self.analysis = Analysis(self._sender)

    def close(self) -> None:
        """Close all connections."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncCoxswain(Generation[AsyncSender], ServerInfo[AsyncSender]):
    """A client of one server for asyncio; arguments and operations as of `Coxswain`.

    async with AsyncCoxswain() as client:
        answer = await client.chat("How do I repair a bicycle?", profile="cheerful")
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        *,
        api_key: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = DEFAULT_MAX_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        connection = Connection(base_url, api_key, timeout_seconds, max_retries)
        super().__init__(AsyncSender(connection, transport))
        self.directions = Directions(self._sender)
        self.profiles = Profiles(self._sender)
        self.aliases = Aliases(self._sender)
        self.jobs = AsyncJobs(self._sender)
        self.keys = Keys(self._sender)
        self.audit = Audit(self._sender)
        self.analysis = Analysis(self._sender)

    async def close(self) -> None:
        """Close all connections."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
