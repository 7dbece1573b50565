"""Reading a request's body: bounded in size, time, nesting and numbers, before any validation."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from starlette.requests import Request

from server.pools import Pool

from .errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DuplicateKeyError,
    InvalidJsonError,
    InvalidUnicodeError,
    UnsupportedMediaError,
)

_T = TypeVar("_T")

MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects."""

_MAX_DIGITS: Final = 64
_MAX_CONTAINERS: Final = 2**16  # arrays and objects; the parser holds up every thread for each
_SLICE_BYTES: Final = 2**16
_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_OWN_OBJECT: Final = "steering"  # the one that is ours in a document that OpenAI defines
_MAX_INLINE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a body a route can use.

    Attributes:
        max_bytes: Of the whole.
        max_values: Texts, numbers, arrays and objects at every depth together.
    """

    max_bytes: int
    max_values: int


class Strictness(Enum):
    """How strictly a JSON document is read, which depends on who defines it.

    A name given twice in a `steering` object is an error under each of them.
    """

    OPENAI = "the last of two equal names wins, as other servers have it"
    OWN = "a name given twice is an error"
    STORED = "so is U+0000 in a text, which no database keeps"


class Offload:
    """Keeps work that grows with a body off the event loop: in a thread where the body is large."""

    def __init__(self, pool: Pool) -> None:
        """Args: pool: the threads that work on large bodies."""
        self._pool = pool

    async def run(self, request: Request, work: Callable[..., _T], /, *args: Any) -> _T:
        """Return what `work` returns, called in a thread unless the request's body is small."""
        return await self.run_sized(getattr(request.state, "body_bytes", 0), work, *args)

    async def run_sized(self, size: int, work: Callable[..., _T], /, *args: Any) -> _T:
        """Return what `work` returns, which takes as long as a body of `size` bytes does."""
        return work(*args) if size <= _MAX_INLINE_BYTES else await self.in_thread(work, *args)

    async def in_thread(self, work: Callable[..., _T], /, *args: Any) -> _T:
        """Return what `work` returns, called in a thread and in the caller's context."""
        return await self._pool.run(work, *args)


async def read_body(request: Request, *, max_bytes: int, timeout_seconds: float) -> bytearray:
    """Read the whole body, and note its size for `Offload.run`.

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
    request.state.body_bytes = len(body)
    return body


def check_media_type(request: Request, *expected: str) -> str:
    """Return the media type, without parameters, if it is one of those expected.

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


def parse_json(
    data: bytes | bytearray, max_values: int, strictness: Strictness = Strictness.OPENAI
) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, finite numbers, nested at most `MAX_DEPTH` deep.

    Raises:
        BodyTooLargeError: More than `max_values`; told before anything is built.
        InvalidJsonError: Something else, or nested deeper.
        DuplicateKeyError: A name given twice where it may not be.
        InvalidUnicodeError: A lone surrogate in a text, or U+0000 in one that would be stored.
    """
    _check_num_values(data, max_values)
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
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            f"the body is not JSON (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(document, dict):
        raise InvalidJsonError("the body is not a JSON object; send {...}")
    _check_value(document, "", 1, strictness)
    return document


def _check_num_values(data: bytes | bytearray, most: int) -> None:
    """Count commas and brackets outside of texts: at least one for each value but the first.

    In slices, and so that other threads run in between.
    """
    if len(data) <= min(most, _MAX_CONTAINERS):
        return
    num_containers = num_closed = num_commas = 0
    is_text, cut = False, b""
    for start in range(0, len(data), _SLICE_BYTES):
        piece = _ESCAPE.sub(b"", cut + data[start : start + _SLICE_BYTES])
        cut = piece[-1:] if piece.endswith(b"\\") else b""
        parts = piece.split(b'"')
        outside = b"".join(parts[is_text::2])
        is_text ^= len(parts) % 2 == 0
        num_containers += outside.count(b"[") + outside.count(b"{")
        num_closed += outside.count(b"]") + outside.count(b"}")
        num_commas += outside.count(b",")
        if num_containers - num_closed > MAX_DEPTH:
            raise _too_deep()
        if num_containers > _MAX_CONTAINERS or num_containers + num_commas > most:
            raise BodyTooLargeError(
                f"the body holds more than {most:,} values, or than {_MAX_CONTAINERS:,} arrays and "
                "objects; send less in one request"
            )


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


class _Ambiguous(dict[str, Any]):
    """An object with a name given twice; whether that matters depends on where it stands."""

    repeated: list[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) == len(pairs):
        return document
    ambiguous = _Ambiguous(document)
    counts = Counter(name for name, _ in pairs)
    ambiguous.repeated = [name for name, count in counts.items() if count > 1]
    return ambiguous


def _too_deep() -> InvalidJsonError:
    return InvalidJsonError(f"the body is nested more than {MAX_DEPTH} deep")


def _check_value(value: Any, path: str, depth: int, strictness: Strictness) -> None:
    if isinstance(value, str):
        _check_text(value, path, strictness)
        return
    if depth > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        if isinstance(value, _Ambiguous):
            _check_names(value, path, strictness)
        for key, item in value.items():
            _check_text(key, path, strictness)
            if isinstance(item, (str, dict, list)):
                is_ours = strictness is Strictness.OPENAI and key == _OWN_OBJECT
                inner = f"{path}.{key}" if path else key
                _check_value(item, inner, depth + 1, Strictness.OWN if is_ours else strictness)
    else:
        for index, item in enumerate(value):
            if isinstance(item, (str, dict, list)):  # long lists are of numbers
                _check_value(item, f"{path}[{index}]", depth + 1, strictness)


def _check_names(document: _Ambiguous, path: str, strictness: Strictness) -> None:
    for name in document.repeated:
        if strictness is not Strictness.OPENAI or name == _OWN_OBJECT:
            param = f"{path}.{name[:64]}" if path else name[:64]
            raise DuplicateKeyError(f"{param} is given more than once; give it once", param=param)


def _check_text(text: str, path: str, strictness: Strictness) -> None:
    if strictness is Strictness.STORED and "\0" in text:
        raise InvalidUnicodeError(
            f"{path or 'the body'} contains U+0000, which cannot be stored; remove it",
            param=path or None,
        )
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidUnicodeError(
                f"{path or 'the body'} contains a lone surrogate, which is not Unicode text",
                param=path or None,
            ) from None
