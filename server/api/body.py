"""Reading a request's body: bounded in size, time, nesting and numbers, before any validation."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final

from starlette.requests import Request

from .errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DuplicateKeyError,
    InvalidJsonError,
    InvalidUnicodeError,
    UnsupportedMediaError,
)

__all__ = ["MAX_DEPTH", "check_media_type", "parse_json", "read_body"]

MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects."""

_MAX_DIGITS: Final = 64
_ONCE: Final = frozenset({"steering"})


async def read_body(request: Request, *, max_bytes: int, timeout_seconds: float) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: More than `max_bytes`, announced or sent.
        BodyTimeoutError: Not complete after `timeout_seconds`.
    """
    too_large = BodyTooLargeError(f"the body is larger than {max_bytes} bytes; send less")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise BodyTimeoutError(
            f"the body was not complete after {timeout_seconds:g} seconds"
        ) from None
    return bytes(body)


def check_media_type(request: Request, *expected: str) -> str:
    """The media type, without parameters, if it is one of those expected.

    Raises:
        UnsupportedMediaError: Another type, a charset other than UTF-8, or a content encoding.
    """
    if "content-encoding" in request.headers:
        raise UnsupportedMediaError("content-encoding is not supported; send the body as it is")
    header = request.headers.get("content-type", "")
    media_type, *parameters = (part.strip().lower() for part in header.split(";"))
    if media_type not in expected:
        raise UnsupportedMediaError(
            f"content-type is not supported; expected {' or '.join(expected)}"
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise UnsupportedMediaError("charset is not supported; send UTF-8")
    return media_type


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, finite numbers, nested at most `MAX_DEPTH` deep.

    Raises:
        InvalidJsonError: Anything else.
        DuplicateKeyError: An object with two members called `steering`.
        InvalidUnicodeError: A lone surrogate in a text.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"the body is not UTF-8 (byte {error.start})") from None
    try:
        document = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_short_int,
            object_pairs_hook=_unique_object,
        )
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            f"the body is not JSON (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(document, dict):
        raise InvalidJsonError("the body is not a JSON object; send {...}")
    _check_values(document, "", 1)
    return document


def _refuse_constant(name: str) -> float:
    raise InvalidJsonError(f"the body contains {name}, which is not JSON; send a finite number")


def _finite_float(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise InvalidJsonError("the body contains a number too large for a float")
    return value


def _short_int(literal: str) -> int:
    if len(literal) > _MAX_DIGITS:
        raise InvalidJsonError(f"the body contains an integer of more than {_MAX_DIGITS} digits")
    return int(literal)


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        for name in _ONCE:
            if names.count(name) > 1:
                raise DuplicateKeyError(f"{name} is given more than once", param=name)
    return document


def _too_deep() -> InvalidJsonError:
    return InvalidJsonError(f"the body is nested more than {MAX_DEPTH} deep")


def _check_values(value: Any, path: str, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise _too_deep()
        for key, item in value.items():
            _check_text(key, path)
            _check_values(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        if depth > MAX_DEPTH:
            raise _too_deep()
        for index, item in enumerate(value):
            if not isinstance(item, int | float):  # long lists are of numbers
                _check_values(item, f"{path}[{index}]", depth + 1)


def _check_text(text: str, path: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidUnicodeError(
                f"{path or 'the body'} contains a lone surrogate, which is not Unicode text",
                param=path or None,
            ) from None
