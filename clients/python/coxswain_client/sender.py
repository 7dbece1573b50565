"""How calls reach the server: one configuration, two thin senders over httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from httpx_retries import Retry, RetryTransport

from .call import Call
from .errors import status_error, transport_error
from .stream import AsyncStream, Stream

_T = TypeVar("_T")

DEFAULT_TIMEOUT_SECONDS: Final = 600.0
"""Time between two pieces of an answer; a long answer that is not streamed is one piece."""

DEFAULT_MAX_RETRIES: Final = 2

_REFUSED: Final = (429, 503)
_LOST: Final = (502, 504)
"""From a proxy that may have passed the request on."""

_CONNECT_SECONDS: Final = 5.0
_MAX_WAIT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is and how patient the client is.

    Attributes:
        base_url: Address of the server; a trailing `/v1`, as other clients take it, is left out.
        api_key: Sent as a bearer token; None sends none.
        timeout_seconds: Longest silence of the server.
        max_retries: Times a request is sent again after 429, 502, 503, 504 or a connection that
            could not be made. `Retry-After` is honoured. Sending twice is safe: generation stores
            nothing, and what makes something has an idempotency key, under which it is done once.
            A deletion is not sent again after 502 and 504, since it may have been done.
    """

    base_url: str
    api_key: str | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_retries: int = DEFAULT_MAX_RETRIES

    def __repr__(self) -> str:
        return f"Connection({self.base_url!r}, api_key={'***' if self.api_key else None})"

    def options(self, transport: httpx.BaseTransport | httpx.AsyncBaseTransport) -> dict[str, Any]:
        """Keyword arguments of `httpx.Client` and `httpx.AsyncClient`."""
        return {
            "base_url": self.base_url.rstrip("/").removesuffix("/v1"),
            "headers": {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"},
            "timeout": httpx.Timeout(self.timeout_seconds, connect=_CONNECT_SECONDS),
            "transport": RetryTransport(transport),
        }

    def retry(self, call: Call[Any]) -> Retry:
        """How often a call is sent again, and why."""
        return Retry(
            total=0 if call.is_probe else self.max_retries,
            allowed_methods=("GET", "POST", "PUT", "DELETE"),
            status_forcelist=_REFUSED if call.method == "DELETE" else _REFUSED + _LOST,
            retry_on_exceptions=(httpx.ConnectError, httpx.ConnectTimeout, _NotYetError),
            backoff_factor=0.5,
            max_backoff_wait=_MAX_WAIT_SECONDS,
            validate_response=_require_end if call.is_kept else None,
        )


class _NotYetError(Exception):
    """The request was sent before and is not answered yet."""


def _require_end(response: httpx.Response) -> None:
    """Refuse to take `idempotency_in_progress` for an answer."""
    if response.status_code == 409 and response.headers.get("x-should-retry") == "true":
        raise _NotYetError


class Sender:
    """Sends calls and waits for their answers."""

    def __init__(self, connection: Connection, transport: httpx.BaseTransport | None) -> None:
        self._connection = connection
        self._http = httpx.Client(**connection.options(transport or httpx.HTTPTransport()))

    def send(self, call: Call[_T]) -> _T:
        """The answer of a call.

        Raises:
            SteeringClientError: There is none, or it is an error.
        """
        try:
            response = self._http.send(self._request(call))
        except httpx.TransportError as error:
            raise transport_error(error) from error
        if not call.is_answered_by(response):
            raise status_error(response)
        return call.read(response)

    def stream(self, call: Call[_T]) -> Stream[_T]:
        """The answer of a call as its events arrive; nothing is sent before it is entered."""
        return Stream(call, self._open(call))

    @contextmanager
    def _open(self, call: Call[Any]) -> Iterator[httpx.Response]:
        try:
            response = self._http.send(self._request(call), stream=True)
        except httpx.TransportError as error:
            raise transport_error(error) from error
        try:
            if not call.is_answered_by(response):
                response.read()
                raise status_error(response)
            yield response
        finally:
            response.close()

    def _request(self, call: Call[Any]) -> httpx.Request:
        return call.build(self._http, self._connection.retry(call))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


class AsyncSender:
    """Sends calls without blocking the event loop."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None) -> None:
        self._connection = connection
        self._http = httpx.AsyncClient(
            **connection.options(transport or httpx.AsyncHTTPTransport())
        )

    async def send(self, call: Call[_T]) -> _T:
        """The answer of a call; raises as `Sender.send`."""
        try:
            response = await self._http.send(self._request(call))
        except httpx.TransportError as error:
            raise transport_error(error) from error
        if not call.is_answered_by(response):
            raise status_error(response)
        return call.read(response)

    def stream(self, call: Call[_T]) -> AsyncStream[_T]:
        """The answer of a call as its events arrive; nothing is sent before it is entered."""
        return AsyncStream(call, self._open(call))

    @asynccontextmanager
    async def _open(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        try:
            response = await self._http.send(self._request(call), stream=True)
        except httpx.TransportError as error:
            raise transport_error(error) from error
        try:
            if not call.is_answered_by(response):
                await response.aread()
                raise status_error(response)
            yield response
        finally:
            await response.aclose()

    def _request(self, call: Call[Any]) -> httpx.Request:
        return call.build(self._http, self._connection.retry(call))

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
