"""What can be wrong with a request before anything is asked of the engine or the store.

RequestError
|-- MalformedBodyError          the body is not what its content type says
|   |-- InvalidJsonError        not JSON, or JSON with numbers or nesting we refuse
|   |-- DuplicateKeyError       a name is given twice where that would be a guess
|   `-- InvalidUnicodeError     text that is not Unicode (a lone surrogate), or cannot be stored
|-- InvalidParameterError       a field has the wrong type or value
|-- MissingParameterError       a required field is absent
|-- UnknownParameterError       a field nobody knows
|-- UnsupportedParameterError   a field of the OpenAI API this server does not offer
|-- InvalidHostError            the Host header is not one we answer to
|-- InvalidUrlError             a path or query that is no text
|-- UrlTooLongError             a path and query over the limit
|-- CrossSiteError              a page of another site asks for a change
|-- ModelNotFoundError          no model of that name is served
|-- RouteNotFoundError          no such path
|-- WrongMethodError            the path exists, not with that method
|-- BodyTimeoutError            the body did not arrive in time
|-- BodyTooLargeError           the body is over the limit
|-- UnsupportedMediaError       content type or encoding we do not read
|-- HeadersTooLargeError        too many header bytes or lines
|-- NotReadyError               starting, draining or too busy to take requests
|-- SteeringNotAppliedError     an answer that should be steered and is not
`-- InternalError               a fault of ours; the log has the details
"""

from __future__ import annotations

from typing import Self

from steering.errors import CoxswainError, short_repr


class RequestError(CoxswainError):
    """A request that cannot be taken as it is."""

    code = "invalid_request"


class MalformedBodyError(RequestError):
    """The body is not what its content type says."""

    code = "invalid_body"


class InvalidJsonError(MalformedBodyError):
    """Not JSON, or JSON with numbers or nesting we refuse."""

    code = "invalid_json"


class DuplicateKeyError(MalformedBodyError):
    """A name is given twice in an object of ours; taking either would be a guess."""

    code = "duplicate_key"


class InvalidUnicodeError(MalformedBodyError):
    """Text that is not Unicode, or has U+0000 where it would be stored."""

    code = "invalid_unicode"


class InvalidParameterError(RequestError):
    """A field has the wrong type or value."""

    code = "invalid_value"


class MissingParameterError(RequestError):
    """A required field is absent."""

    code = "missing_required_parameter"


class UnknownParameterError(RequestError):
    """A field nobody knows; most often a typing mistake."""

    code = "unknown_parameter"


class UnsupportedParameterError(RequestError):
    """A field of the OpenAI API this server does not offer."""

    code = "unsupported_parameter"


class InvalidHostError(RequestError):
    """The Host header is not one we answer to."""

    code = "invalid_host"


class InvalidUrlError(RequestError):
    """A path or query with control characters, or whose escapes are not UTF-8."""

    code = "invalid_url"


class UrlTooLongError(RequestError):
    """A path and query over the limit."""

    code = "url_too_long"


class CrossSiteError(RequestError):
    """A browser asks for a change on behalf of a page that is not this server's."""

    code = "cross_site_request"


class ModelNotFoundError(RequestError):
    """No model of that name is served."""

    code = "model_not_found"

    @classmethod
    def of(cls, model: str, served: str) -> Self:
        """The error of a request for `model`, where `served` is the name of the base model."""
        return cls(
            f"model is {short_repr(model)}; expected {served!r} or '{served}:PROFILE'; "
            "GET /v1/models lists them",
            param="model",
        )


class RouteNotFoundError(RequestError):
    """No such path."""

    code = "not_found"


class WrongMethodError(RequestError):
    """The path exists, not with that method.

    Attributes:
        allow: Methods it has, as the `Allow` header names them.
    """

    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTimeoutError(RequestError):
    """The body did not arrive in time."""

    code = "request_timeout"


class BodyTooLargeError(RequestError):
    """The body is over the limit."""

    code = "body_too_large"


class UnsupportedMediaError(RequestError):
    """A content type or encoding we do not read."""

    code = "unsupported_media_type"


class HeadersTooLargeError(RequestError):
    """Too many header bytes or lines."""

    code = "headers_too_large"


class NotReadyError(RequestError):
    """Starting, draining or too busy to take requests."""

    code = "server_is_overloaded"


class SteeringNotAppliedError(RequestError):
    """An answer that should be steered and is not; a fault of ours, never delivered."""

    code = "steering_not_applied"


class InternalError(RequestError):
    """A fault of ours; the log has the details under the request id."""

    code = "server_error"
