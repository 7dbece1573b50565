"""Every error that a request can meet, and the status and type it has on the wire.

One ordered table; the first row an error is an instance of decides. Every failure has one body,
`{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from server import pools
from server.auth import permissions as auth
from server.engine import errors as engine
from server.resolver import errors as resolver
from server.store import errors as store
from steering import errors as steering
from steering.errors import SteeringError

from . import errors as api

_INVALID: Final = "invalid_request_error"
_PERMISSION: Final = "permission_error"
_LIMIT: Final = "rate_limit_error"
_SERVER: Final = "server_error"
_UNAVAILABLE: Final = "service_unavailable_error"

_ADMIN_PATHS: Final = ("/v1/steering/", "/v1/admin/")
_MAX_MESSAGE_CHARS: Final = 1000
_RETRY: Final = {"retry-after": "1", "x-should-retry": "true"}
_RETRY_LATER: Final = {"retry-after": "5", "x-should-retry": "true"}
_NO_RETRY: Final = {"x-should-retry": "false"}
_HIDDEN_MESSAGE: Final = "the server failed on this request; its log has the details"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one kind of error is answered.

    Attributes:
        kind: Errors of this class, and of its subclasses without a row above.
        status: On the OpenAI routes.
        type: Goes on the wire as `error.type`.
        admin_status: Under `/v1/steering` and `/v1/admin`; None means the same.
        headers: Sent along.
        is_shown: Whether the message is for the caller; otherwise it is only logged.
    """

    kind: type[Exception]
    status: int
    type: str = _INVALID
    admin_status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_shown: bool = True


ERROR_TABLE: Final[tuple[ErrorRow, ...]] = (
    # Requests
    ErrorRow(api.BodyTimeoutError, 408),
    ErrorRow(api.BodyTooLargeError, 413),
    ErrorRow(api.UnsupportedMediaError, 415),
    ErrorRow(api.UrlTooLongError, 414),
    ErrorRow(api.HeadersTooLargeError, 431),
    ErrorRow(api.CrossSiteError, 403, _PERMISSION),
    ErrorRow(api.ModelNotFoundError, 404),
    ErrorRow(api.RouteNotFoundError, 404),
    ErrorRow(api.WrongMethodError, 405),
    ErrorRow(api.NotReadyError, 503, _UNAVAILABLE, headers=_RETRY),
    ErrorRow(pools.PoolFullError, 503, _UNAVAILABLE, headers=_RETRY),
    ErrorRow(api.SteeringNotAppliedError, 500, _SERVER),
    ErrorRow(api.InternalError, 500, _SERVER, is_shown=False),
    ErrorRow(api.RequestError, 400),
    # Keys
    ErrorRow(auth.PermissionDeniedError, 403, _PERMISSION),
    ErrorRow(auth.RateLimitedError, 429, _LIMIT),
    ErrorRow(auth.AuthError, 401, "authentication_error", headers={"www-authenticate": "Bearer"}),
    # The choice of steering
    ErrorRow(resolver.InvalidSteeringError, 400, admin_status=422),
    # Steering
    ErrorRow(steering.FormatError, 400),
    ErrorRow(steering.UnsupportedArchitectureError, 500, _SERVER),
    ErrorRow(steering.SelfCheckError, 500, _SERVER),
    ErrorRow(SteeringError, 400, admin_status=422),
    # The engine
    ErrorRow(engine.QueueFullError, 429, _LIMIT, headers=_RETRY),
    ErrorRow(engine.EngineDrainingError, 503, _UNAVAILABLE, headers=_RETRY),
    ErrorRow(engine.RequestRejectedError, 400),
    ErrorRow(engine.NonFiniteOutputError, 500, _SERVER, headers=_NO_RETRY),
    ErrorRow(engine.SlowClientError, 408),
    ErrorRow(engine.RequestAbortedError, 503, _UNAVAILABLE, headers=_RETRY),
    ErrorRow(engine.GenerationError, 500, _SERVER, is_shown=False),
    ErrorRow(engine.EngineDeadError, 500, _SERVER, headers=_RETRY, is_shown=False),
    ErrorRow(engine.EngineError, 500, _SERVER, is_shown=False),
    # The store
    ErrorRow(store.NotFoundError, 404),
    ErrorRow(store.JobQueueFullError, 429, _LIMIT, headers=_RETRY_LATER),
    ErrorRow(store.IdempotencyPendingError, 409, headers=_RETRY),
    ErrorRow(store.ConflictError, 409),
    ErrorRow(store.ProfileUnavailableError, 409),
    ErrorRow(store.NameReservedError, 400, admin_status=422),
    ErrorRow(store.InvalidCursorError, 400),
    ErrorRow(store.PreconditionFailedError, 412),
    ErrorRow(store.InsufficientStorageError, 507, _SERVER),
    ErrorRow(store.CorruptArtifactError, 503, _UNAVAILABLE),
    ErrorRow(store.StoreReplacedError, 503, _UNAVAILABLE, headers=_RETRY_LATER),
    ErrorRow(store.StoreBusyError, 503, _UNAVAILABLE, headers=_RETRY),
    ErrorRow(store.StoreUnavailableError, 503, _UNAVAILABLE, headers=_RETRY, is_shown=False),
    ErrorRow(store.StoreError, 500, _SERVER, is_shown=False),
)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as it goes on the wire."""

    status: int
    type: str
    code: str
    message: str
    param: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Mapping[str, Any], ...] = ()

    def body(self) -> dict[str, Any]:
        """Return the JSON body, which is also the data of an error event in a stream."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.problems:
            error["problems"] = [dict(problem) for problem in self.problems]
        return {"error": error}


def reply_to(error: Exception, path: str) -> ErrorReply:
    """Return how `error` is answered on `path`; one without a row is a fault of the server."""
    row = next((row for row in ERROR_TABLE if isinstance(error, row.kind)), None)
    if row is None:
        return ErrorReply(500, _SERVER, api.InternalError.code, _HIDDEN_MESSAGE, None)
    status, headers = row.status, dict(row.headers)
    if row.admin_status is not None and path.startswith(_ADMIN_PATHS):
        status = row.admin_status
    if isinstance(error, engine.NonFiniteOutputError) and error.is_steered:
        return ErrorReply(422, _INVALID, "steering_nonfinite", str(error), "steering", headers)
    if isinstance(error, auth.RateLimitedError):
        headers = {"retry-after": str(error.retry_after_seconds), "x-should-retry": "true"}
    if isinstance(error, api.WrongMethodError):
        headers["allow"] = error.allow
    return ErrorReply(
        status=status,
        type=row.type,
        code=getattr(error, "code", api.InternalError.code),
        message=str(error)[:_MAX_MESSAGE_CHARS] if row.is_shown else _HIDDEN_MESSAGE,
        param=getattr(error, "param", None),
        headers=headers,
        problems=_problems(error),
    )


def _problems(error: Exception) -> tuple[dict[str, Any], ...]:
    if isinstance(error, resolver.InvalidProfileError):
        return tuple(asdict(problem) for problem in error.problems)
    if isinstance(error, store.InUseError):
        return tuple({"used_by": user} for user in error.users)
    return ()
