"""Server-sent events, over Starlette's streaming response.

The response starts only once there is a first event, so whatever fails before it keeps its own
status. A failure afterwards is one in-band error event and no `[DONE]`: a client that sees a stream
end without either would take it for complete.

`fastapi.sse` answers 200 before the first event and bounds no send; `sse-starlette` 3.7 replaces
`uvicorn.Server.handle_exit` when it is imported, and ends streams at a shutdown that we drain for.
Around either, the first event, the error event, the bound and the comment in a silence would stay
ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

DONE: Final = "[DONE]"

_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_COMMENT: Final = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event with the number that a client sends back as `Last-Event-ID` to go on after it."""

    number: int
    data: Mapping[str, Any]


_Event = Mapping[str, Any] | str | Numbered


class SendTimeoutError(Exception):
    """The reader took nothing for too long; there is nobody left to tell."""


class EventStream(StreamingResponse):
    """A response of events, sent one at a time as the reader takes them.

    Nothing is buffered here: an event is asked for when the one before it has been taken, and a
    reader that takes none for `send_timeout` loses its stream.

    Args:
        first: The event that was waited for before the response began; None begins at once.
        rest: The events after it; closed, and so aborted, when the reader leaves.
        describe: Turns a failure into the body of its error event.
        keep_alive: Seconds of silence before a comment is sent.
        send_timeout: Seconds a reader may leave an event untaken.
        headers: Sent beside those that every stream has.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: _Event | None,
        rest: AsyncGenerator[_Event, None],
        *,
        describe: Callable[[Exception], Mapping[str, Any]],
        keep_alive: float,
        send_timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._rest = rest
        self._describe = describe
        self._keep_alive = keep_alive
        self._send_timeout = send_timeout
        self._pieces = self._encode_all(first)
        super().__init__(self._pieces, headers={**_HEADERS, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, or stop when the reader leaves."""
        del scope
        # A stream cut short is not ended: without its last body message the server closes the
        # connection, and the client sees that.
        with suppress(ClientDisconnect, SendTimeoutError):
            await until_disconnect(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        # Starlette would leave a stream that is cut short to be closed by the garbage collector,
        # and the request behind it running until then.
        async with aclosing(self._rest), aclosing(self._pieces):
            await self.stream_response(self._bounded(send))

    async def _encode_all(self, first: _Event | None) -> AsyncGenerator[bytes, None]:
        yield _COMMENT if first is None else _encoded(first)
        while True:
            pending = asyncio.ensure_future(anext(self._rest))
            try:
                while not (await asyncio.wait({pending}, timeout=self._keep_alive))[0]:
                    yield _COMMENT
                event = pending.result()
            except StopAsyncIteration:
                return
            except Exception as error:  # the response has begun: this is its error boundary
                yield _encoded(self._describe(error))
                return
            finally:
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)
            yield _encoded(event)

    def _bounded(self, send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._send_timeout):
                    await send(message)
            except TimeoutError:
                raise SendTimeoutError(
                    f"the reader took nothing for {self._send_timeout:g} seconds"
                ) from None

        return send_in_time


def _encoded(event: _Event) -> bytes:
    number = ""
    if isinstance(event, Numbered):
        number, event = f"id: {event.number}\n", event.data
    data = event if isinstance(event, str) else event_text(event)
    return f"{number}data: {data}\n\n".encode()


def event_text(data: Mapping[str, Any]) -> str:
    """Return the data of an event as it is sent."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


async def until_disconnect(receive: Receive, work: Awaitable[Any]) -> Any:
    """Return the result of `work`, unless the client leaves first.

    `receive` must have delivered the body already. On a disconnect, `work` is cancelled and waited
    for, so that what it holds is released when this returns.

    Raises:
        ClientDisconnect: The client left.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for future in (task, watch):
            future.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
