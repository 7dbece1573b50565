"""What happens to every request before and after its route: pure ASGI, outermost first."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.permissions import Allowance

from .errors import (
    CrossSiteError,
    HeadersTooLargeError,
    InvalidHostError,
    InvalidUrlError,
    NotReadyError,
    UrlTooLongError,
)
from .lifecycle import Lifecycle
from .limits import Room

_MAX_HEADER_BYTES: Final = 16 * 1024
_MAX_HEADERS: Final = 100
_MAX_URL_BYTES: Final = 8 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = (b"same-origin", b"none")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ALWAYS_OPEN: Final = ("/health", "/metrics")
_log = structlog.get_logger(__name__)

_Answer = Callable[[Exception, Scope], Response]


def is_request_id(text: str) -> bool:
    """Whether a client's `x-request-id` may stand in logs and answers as it is."""
    return _REQUEST_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ErrorBoundary:
    """Turns whatever a request raises into the one error body; no error passes it."""

    app: ASGIApp
    answer: _Answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request and answer what it raises, unless its response has begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientDisconnect:
            return
        except Exception as error:  # the ASGI border: the last place that can answer
            if has_started:
                _log.exception("response_broken", path=scope["path"])
                raise
            await self.answer(error, scope)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Gate:
    """Refuses what no route should see: unknown hosts, other sites' pages, heads beyond bounds.

    Attributes:
        app: Behind the gate.
        lifecycle: Says whether the server drains.
        hosts: Names in `Host` that are answered to; empty means any.
        trusted: Names whose pages count as this server's own, whatever `Host` a proxy writes.
        room: In the engine's queue.
        queued: Paths of the routes that need it.
    """

    app: ASGIApp
    lifecycle: Lifecycle
    hosts: Collection[str]
    trusted: Collection[str]
    room: Room
    queued: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request's head, then run it."""
        if scope["type"] == "http":
            _check_size(scope)
            host = _header(scope, b"host").lower()
            if self.hosts and _host_name(host) not in self.hosts:
                raise InvalidHostError("the Host header names a host this server does not serve")
            if scope["method"] not in _SAFE_METHODS:
                self._check_site(scope, host)
            _check_url(scope)
            if self.lifecycle.is_draining and not scope["path"].startswith(_ALWAYS_OPEN):
                raise NotReadyError("the server is shutting down; try again shortly")
            if scope["path"] in self.queued and scope["method"] == "POST":
                self.room.ask()
        await self.app(scope, receive, send)

    def _check_site(self, scope: Scope, host: str) -> None:
        """Refuse what a page of another site sends.

        A program that is no browser sends neither header; a page can neither forge nor omit both.
        """
        for name, value in scope["headers"]:
            is_foreign = (name == b"sec-fetch-site" and value.lower() not in _OWN_SITE) or (
                name == b"origin" and not self._is_own(value.decode("latin-1").lower(), host)
            )
            if is_foreign:
                raise CrossSiteError(
                    f"{name.decode()} is that of another site's page, and {scope['method']} "
                    "changes something; expected the server's own origin; call it from a program"
                )

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, authority = origin.partition("://")
        port = _DEFAULT_PORTS.get(scheme)
        if port is None or not authority:
            return False
        is_same = authority.removesuffix(port) == host.removesuffix(port)
        return is_same or _host_name(authority) in self.trusted


@dataclass(frozen=True, slots=True)
class AllowanceHeaders:
    """Adds to every answer what the key's limit leaves, in OpenAI's header names."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request; routes that need a key leave its key's allowance in the state."""

        async def send_with_headers(message: Message) -> None:
            allowance: Allowance | None = scope.get("state", {}).get("allowance")
            if allowance is not None and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-ratelimit-limit-requests"] = str(allowance.limit)
                headers["x-ratelimit-remaining-requests"] = str(allowance.remaining)
                headers["x-ratelimit-reset-requests"] = f"{allowance.reset_seconds:.3f}s"
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _check_size(scope: Scope) -> None:
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size > _MAX_URL_BYTES:
        raise UrlTooLongError(f"the URL has {size} bytes; expected at most {_MAX_URL_BYTES}")
    headers = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > _MAX_HEADERS or size > _MAX_HEADER_BYTES:
        raise HeadersTooLargeError(
            f"{len(headers)} headers of {size} bytes; expected at most {_MAX_HEADERS} "
            f"of {_MAX_HEADER_BYTES} bytes together"
        )


def _check_url(scope: Scope) -> None:
    """Check that path and query are UTF-8 without control characters, as stores need text."""
    parts = [("path", scope["raw_path"])]
    parts += [(_printable_name(part), part) for part in scope["query_string"].split(b"&")]
    for name, part in parts:
        try:
            text = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidUrlError(f"{name}: expected UTF-8 in %-escapes", param=name) from None
        if _CONTROL.search(text) is not None:
            raise InvalidUrlError(f"{name}: expected text without control characters", param=name)


def _printable_name(query: bytes) -> str:
    """Return the name of a query parameter as it may stand in an answer."""
    name = unquote_to_bytes(query.partition(b"=")[0]).decode("utf-8", "replace")
    return _CONTROL.sub("?", name)[:64]


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value for name, value in scope["headers"] if name == wanted), b"").decode(
        "latin-1"
    )


def _host_name(host: str) -> str:
    """Return `localhost` of `localhost:8000`, and `[::1]` of `[::1]:8000`."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
