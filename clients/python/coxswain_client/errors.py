"""What can go wrong between this client and a server.

SteeringClientError
|-- APIConnectionError          no answer: refused, reset, or cut before its end
|-- APITimeoutError             no answer in time
|-- APIStreamError              the server reported a fault inside a stream
`-- APIStatusError              an answer with an error status
    |-- BadRequestError         400
    |-- AuthenticationError     401
    |-- PermissionDeniedError   403
    |-- NotFoundError           404
    |-- RequestTimeoutError     408
    |-- ConflictError           409
    |-- PayloadTooLargeError    413
    |-- UnsupportedMediaError   415
    |-- UnprocessableError      422
    |-- RateLimitError          429
    `-- ServerError             500 and above
        |-- ServiceUnavailableError    503
        `-- InsufficientStorageError   507
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx


class SteeringClientError(Exception):
    """Base of every error of this package.

    Attributes:
        code: Machine-readable name of the fault, where the server gave one; else None.
        param: The request's field at fault, where the server named one; else None.
    """

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class APIConnectionError(SteeringClientError):
    """No answer, or one that was cut before its end."""


class APITimeoutError(SteeringClientError):
    """No answer in time."""


class APIStreamError(SteeringClientError):
    """The server reported a fault after the stream had begun.

    Args:
        error: The `error` object of the event.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        message = str(error.get("message", "the server ended the stream with an error"))
        super().__init__(message, code=error.get("code"), param=error.get("param"))


class APIStatusError(SteeringClientError):
    """An answer with an error status.

    Attributes:
        status: HTTP status.
        request_id: What to quote to the server's operator, or None.
    """

    def __init__(self, response: httpx.Response) -> None:
        error = _error_object(response)
        message = str(error.get("message") or f"HTTP status {response.status_code}")
        super().__init__(message, code=error.get("code"), param=error.get("param"))
        self.status = response.status_code
        self.request_id: str | None = response.headers.get("x-request-id")


class BadRequestError(APIStatusError):
    """400: the request is wrong; the message says how."""


class AuthenticationError(APIStatusError):
    """401: no valid API key."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model, profile, direction or route."""


class RequestTimeoutError(APIStatusError):
    """408: the server waited too long for the request or its reader."""


class ConflictError(APIStatusError):
    """409: the present state forbids it, such as deleting what a profile uses."""


class PayloadTooLargeError(APIStatusError):
    """413: the body is larger than the server accepts."""


class UnsupportedMediaError(APIStatusError):
    """415: the body has another content type than the route reads."""


class UnprocessableError(APIStatusError):
    """422: a direction, profile or alias is wrong; the message says how."""


class RateLimitError(APIStatusError):
    """429: too many requests; sent again automatically after `Retry-After` first."""


class ServerError(APIStatusError):
    """500 and above: the fault is the server's."""


class ServiceUnavailableError(ServerError):
    """503: starting, draining or overloaded; sent again automatically first."""


class InsufficientStorageError(ServerError):
    """507: the server's store is full."""


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: RequestTimeoutError,
    409: ConflictError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaError,
    422: UnprocessableError,
    429: RateLimitError,
    503: ServiceUnavailableError,
    507: InsufficientStorageError,
}


def status_error(response: httpx.Response) -> APIStatusError:
    """The error of a response that has been read and whose status is 400 or above."""
    other = ServerError if response.status_code >= 500 else APIStatusError
    return _BY_STATUS.get(response.status_code, other)(response)


def transport_error(error: httpx.TransportError) -> SteeringClientError:
    """The error for a request that got no whole answer."""
    told = str(error) or type(error).__name__
    if isinstance(error, httpx.UnsupportedProtocol):
        return APIConnectionError(
            f"base_url is no address ({told}); expected one such as http://127.0.0.1:8000"
        )
    server = error.request.url.copy_with(raw_path=b"")
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(f"no answer from {server} in time: {told}")
    return APIConnectionError(
        f"no answer from {server}: {told}; expected a Coxswain server there, ready by /health/ready"
    )


def _error_object(response: httpx.Response) -> Mapping[str, Any]:
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, Mapping) else {}
