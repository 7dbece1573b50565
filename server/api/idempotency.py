"""`Idempotency-Key`: a request that is sent again is answered again, and done once."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog
from fastapi import Request
from starlette.responses import Response

from server.auth.permissions import Principal
from server.store import KeptAnswer
from server.store.canonical import canonical_json
from server.store.errors import StoreError

from .deps import Services
from .http.errors import InvalidParameterError
from .request_body import IDEMPOTENCY_HEADER, read_bounded

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "in": "header",
    "name": IDEMPOTENCY_HEADER,
    "description": "The same request under the same key is done once within a day.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
"""The header of a request that is done once, as OpenAPI writes it."""

_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BOUNDARY: Final = re.compile(r'boundary="?([^";,]+)"?')
_KEPT_HEADERS: Final = ("content-type", "etag", "location")
_Route = TypeVar("_Route", bound=Callable[..., Awaitable[Response]])
_log = structlog.get_logger(__name__)


def idempotent(*, has_secret: bool = False) -> Callable[[_Route], _Route]:
    """Make a route be done once for every key, caller and request within a day.

    The route takes `request` and `services`, and is called once its caller is authorized and its
    body was read. Only answers are kept, not errors: a request that failed changed nothing and may
    be sent again.

    Args:
        has_secret: The answer is not kept; the same request is a conflict afterwards.
    """

    def decorate(route: _Route) -> _Route:
        @functools.wraps(route)
        async def once(**arguments: Any) -> Response:
            request, services = arguments["request"], arguments["services"]
            key = _key(request)
            if key is None:
                return await route(**arguments)
            body = getattr(request.state, "sent", None)
            if body is None:  # the route has none, and ignores what was sent
                body = await read_bounded(request, services, services.limits.max_body_bytes)
            caller: Principal = request.state.caller
            claim = _Claim(services, caller.key_id, key)
            kept = await claim.take(await services.offload.run(request, _digest, request, body))
            if kept is not None:
                headers = {**kept.headers, "idempotency-replayed": "true"}
                return Response(kept.body, kept.status, headers)
            refusal: Exception | None = getattr(request.state, "refusal", None)
            try:
                if refusal is not None:
                    raise refusal
                response = await route(**arguments)
            except Exception:
                await claim.settle(None)
                raise
            await claim.settle(_kept(response, has_secret=has_secret))
            return response

        return once  # type: ignore[return-value]

    return decorate


class _Claim:
    """The claim on one caller's key, from before its request is done until after."""

    def __init__(self, services: Services, caller: str | None, key: str) -> None:
        self._store = services.store.idempotency
        self._pool = services.pools.writes
        self._name = (caller, key)

    async def take(self, digest: str) -> KeptAnswer | None:
        """Claim the key as `IdempotencyStore.claim` does, in a thread."""
        return await self._pool.run(self._store.claim, *self._name, digest)

    async def settle(self, answer: KeptAnswer | None) -> None:
        """Keep the answer, or give the key up; the client gets its answer even if this fails."""
        try:
            if answer is None:
                await self._pool.run(self._store.release, *self._name)
            else:
                await self._pool.run(self._store.keep, *self._name, answer)
        except StoreError:
            _log.exception("idempotency_key_unsettled")
            if answer is None:
                self._store.abandon(*self._name)


def _key(request: Request) -> str | None:
    values = request.headers.getlist(IDEMPOTENCY_HEADER)
    if not values:
        return None
    if len(values) > 1 or _KEY.fullmatch(values[0]) is None:
        raise InvalidParameterError(
            f"{IDEMPOTENCY_HEADER}: expected one, of 1 to 64 letters, digits, '.', '_' and '-'",
            param=IDEMPOTENCY_HEADER,
        )
    return values[0]


def _digest(request: Request, body: bytearray) -> str:
    """Hash all that makes a request the same, without a form's boundary, which is always new."""
    content_type = request.headers.get("content-type", "")
    boundary = _BOUNDARY.search(content_type)
    if boundary is not None:
        content_type = content_type.replace(boundary[1], "")
        body = body.replace(boundary[1].encode("latin-1"), b"")
    head = [
        *(request.method, request.url.path, request.url.query, content_type),
        *request.headers.getlist("if-match"),
    ]
    return hashlib.sha256(canonical_json(head).encode() + b"\n" + body).hexdigest()


def _kept(response: Response, *, has_secret: bool) -> KeptAnswer:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    body = None if has_secret else bytes(response.body)
    return KeptAnswer(response.status_code, headers, body)
