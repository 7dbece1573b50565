"""One request to a server, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from httpx_retries import Retry
from pydantic import BaseModel

_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One HTTP request, and how its answer is read.

    Attributes:
        method: HTTP method.
        path: Path below the server's address, quoted.
        read: From a successful response (or, of a stream, from each event) to its value.
        json: Body that is sent as JSON, or None.
        params: Parameters of the query; entries that are None are left out.
        headers: Headers beside those of every request.
        files: Parts of a multipart body: name to (file name, content, content type).
        accepts: Error statuses that are answers too.
        is_kept: Whether the server keeps its answer under an `Idempotency-Key`: however often the
            request is sent, it is done once.
        is_probe: Whether it asks how the server is now; such a request is sent once.
    """

    method: str
    path: str
    read: Callable[[Any], _T]
    json: Mapping[str, Any] | None = None
    params: Mapping[str, str | int | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str | None, bytes, str]] | None = None
    accepts: frozenset[int] = frozenset()
    is_kept: bool = False
    is_probe: bool = False

    def build(self, client: httpx.Client | httpx.AsyncClient, retry: Retry) -> httpx.Request:
        """The request, with the client's address, headers and timeouts.

        However often `retry` sends it, it is one request with one idempotency key.
        """
        params = {name: value for name, value in self.params.items() if value is not None}
        key = {"idempotency-key": uuid4().hex} if self.is_kept else {}
        return client.build_request(
            self.method,
            self.path,
            json=self.json,
            params=params,
            headers={**self.headers, **key},
            files=self.files,
            extensions={"retry": retry},
        )

    def is_answered_by(self, response: httpx.Response) -> bool:
        """Whether the response is an answer rather than an error."""
        return response.is_success or response.status_code in self.accepts


def below(path: str, *segments: str) -> str:
    """`path` and segments below it; what a segment holds never becomes more path."""
    return "/".join([path, *(quote(segment, safe="@") for segment in segments)])


def read_as(kind: type[_M]) -> Callable[[httpx.Response], _M]:
    """What reads the answer of a `Call` as one object of a kind."""

    def read(response: httpx.Response) -> _M:
        return kind.model_validate(response.json())

    return read
