"""Answers that arrive as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from .call import Call
from .errors import APIConnectionError, APIStreamError, transport_error

_T = TypeVar("_T")
_DONE = "[DONE]"
_CUT = "the stream ended before its closing event"


class Stream(Generic[_T]):
    """Events of one answer, in order: a context manager and an iterator.

    Leaving the context early closes the connection, and the server stops generating.

    Raises:
        APIStatusError: On entering: the request was refused.
        APIStreamError: While iterating: the server reported a fault.
        APIConnectionError: While iterating: the stream ended before its closing event.
    """

    def __init__(self, call: Call[_T], opened: AbstractContextManager[httpx.Response]) -> None:
        self._call = call
        self._opened = opened
        self._response: httpx.Response | None = None

    def __enter__(self) -> Self:
        self._response = self._opened.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[_T]:
        assert self._response is not None, "a stream is read inside its with block"
        try:
            for event in EventSource(self._response).iter_sse():
                if event.data == _DONE:
                    return
                if event.data:  # a keep-alive after an event with an id arrives as one without data
                    yield _read(self._call, event)
        except SSEError as error:
            raise APIConnectionError(f"the answer is no stream: {error}") from error
        except httpx.TransportError as error:
            raise transport_error(error) from error
        raise APIConnectionError(_CUT)


class AsyncStream(Generic[_T]):
    """Events of one answer, in order; the asynchronous form of `Stream`."""

    def __init__(self, call: Call[_T], opened: AbstractAsyncContextManager[httpx.Response]) -> None:
        self._call = call
        self._opened = opened
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> Self:
        self._response = await self._opened.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[_T]:
        assert self._response is not None, "a stream is read inside its async with block"
        try:
            async with aclosing(EventSource(self._response).aiter_sse()) as events:
                async for event in events:
                    if event.data == _DONE:
                        return
                    if event.data:
                        yield _read(self._call, event)
        except SSEError as error:
            raise APIConnectionError(f"the answer is no stream: {error}") from error
        except httpx.TransportError as error:
            raise transport_error(error) from error
        raise APIConnectionError(_CUT)


def _read(call: Call[_T], event: ServerSentEvent) -> _T:
    """The value of one event.

    Raises:
        APIStreamError: The event reports a fault.
    """
    document = event.json()
    if "error" in document:
        raise APIStreamError(document["error"])
    return call.read(document)
