"""uvicorn's HTTP protocol, bounded, with our error body where no application is reached.

It overrides methods that uvicorn does not document, because no setting of uvicorn's does what they
do. A connection that sends no head, or half of one, would be kept for ever (`timeout_keep_alive`
begins only after an answer), so would one that goes on with a body after its answer, and
`limit_concurrency` lets a connection too many wait until it asks, and answers it in plain text:
each is a test of `tests/contract/test_sockets.py` that fails without this file. What is not HTTP,
or has a head beyond every limit, would get uvicorn's plain 400 in place of our body and of 414 or
431, which `tests/server/api/test_process.py` asks for. A reverse proxy may do all of this too, but
a server that is started by the README's two commands stands behind none.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LINGER_SECONDS: Final = 1.0


class BoundedProtocol(H11Protocol):
    """Refuses connections beyond a number, and those that do not send a request's head in time.

    Attributes:
        max_connections: Open at once; uvicorn's own limit would answer in plain text.
        head_timeout_seconds: For a head, from its connection or the end of the request before,
            and for what is left of a body once it is answered.
    """

    max_connections: ClassVar[int] = 1024
    head_timeout_seconds: ClassVar[float] = 10.0

    _head_timer: asyncio.TimerHandle | None = None
    _is_refused: bool = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "server_is_overloaded", "too many connections; try again shortly")
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer of the next head."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; nothing more of a connection that is refused."""
        if not self._is_refused:
            super().data_received(data)

    def handle_events(self) -> None:
        """Read what has come; wait on while a head, or a body that nobody reads, is incomplete."""
        super().handle_events()
        is_answered = self.conn.our_state is h11.DONE
        if self.conn.their_state is not h11.IDLE and not is_answered:
            self._stop_waiting()
        elif self._head_timer is None:
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has a head beyond every limit."""
        error = sys.exception()  # uvicorn calls this while it handles h11's
        if getattr(error, "error_status_hint", 400) != 431:
            self._refuse(400, "invalid_http", msg)
        elif b"\n" not in self.conn.trailing_data[0]:
            self._refuse(414, "url_too_long", "the URL is beyond every limit; send a shorter one")
        else:
            self._refuse(431, "headers_too_large", "the headers are beyond every limit; send less")

    def _refuse(self, status: int, code: str, message: str) -> None:
        kind = "service_unavailable_error" if status == 503 else "invalid_request_error"
        error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"retry-after", b"1"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._lingering_close()

    def _lingering_close(self) -> None:
        # Closed at once with bytes unread, the connection would be reset, and the answer lost.
        self._is_refused = True
        self._stop_waiting()
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


def bounded_protocol(max_connections: int) -> type[BoundedProtocol]:
    """The protocol with its bound; uvicorn takes a class, not an instance."""
    return type("BoundedProtocol", (BoundedProtocol,), {"max_connections": max_connections})
