"""Descriptors that make methods of functions from arguments to a `Call`.

A resource states each of its operations once. Read from a resource of `Coxswain`, an `Endpoint` is
a method that returns the answer; read from one of `AsyncCoxswain`, it returns an awaitable of it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, overload

from .call import Call
from .sender import AsyncSender, Sender
from .stream import AsyncStream, Stream

_T = TypeVar("_T")
_P = ParamSpec("_P")
_S = TypeVar("_S", bound=Sender | AsyncSender, covariant=True)


class Resource(Generic[_S]):
    """A group of operations that share a sender."""

    def __init__(self, sender: _S) -> None:
        self._sender = sender


class Endpoint(Generic[_P, _T]):
    """A method made of a function that builds a call."""

    def __init__(self, build: Callable[_P, Call[_T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, owner: Resource[Sender], kind: type) -> Callable[_P, _T]: ...

    @overload
    def __get__(
        self, owner: Resource[AsyncSender], kind: type
    ) -> Callable[_P, Coroutine[Any, Any, _T]]: ...

    def __get__(self, owner: Resource[Any], kind: type) -> Callable[_P, Any]:
        """The method of one resource."""

        def method(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            return owner._sender.send(self._build(*args, **kwargs))

        method.__doc__ = self.__doc__
        return method


class StreamEndpoint(Generic[_P, _T]):
    """A method made of a function that builds a call whose answer is a stream of events."""

    def __init__(self, build: Callable[_P, Call[_T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, owner: Resource[Sender], kind: type) -> Callable[_P, Stream[_T]]: ...

    @overload
    def __get__(
        self, owner: Resource[AsyncSender], kind: type
    ) -> Callable[_P, AsyncStream[_T]]: ...

    def __get__(self, owner: Resource[Any], kind: type) -> Callable[_P, Any]:
        """The method of one resource."""

        def method(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            return owner._sender.stream(self._build(*args, **kwargs))

        method.__doc__ = self.__doc__
        return method
