"""The second half of every generation route: run, then answer whole or as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

import structlog
from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.engine.errors import EngineDrainingError, RequestAbortedError
from server.errors import reply_to

from .deps import Services
from .run import Run
from .sse import EventStream, Numbered, until_disconnect
from .tally import Tally

__all__ = ["describe_failure", "respond"]

_ENTRY_BYTES: Final = 256
_log = structlog.get_logger(__name__)

_Events = AsyncGenerator[Mapping[str, Any] | str | Numbered, None]


async def respond(
    request: Request,
    services: Services,
    run: Run,
    answer: Callable[[Run], Mapping[str, Any]],
    events: Callable[[Run], _Events],
    *,
    is_stream: bool,
) -> Response:
    """Run, and answer by `answer` or, where a stream is asked for, by `events`.

    Raises:
        EngineError: Nothing has been sent yet.
        ClientDisconnect: The client left; the sequences are aborted.
    """
    headers = {"x-steering-applied": run.steering.header}
    if not is_stream:
        await until_disconnect(request.receive, run.finish())
        # It grows with the body, which may be echoed, and with every log-probability.
        size = getattr(request.state, "body_bytes", 0) + sum(map(_size, run.tallies))
        return await services.desk.run_sized(
            size, lambda: JSONResponse(answer(run), headers=headers)
        )
    rest = events(run)
    first = await until_disconnect(request.receive, anext(rest))
    return EventStream(
        first,
        rest,
        describe=lambda error: describe_failure(error, services, request.url.path),
        keep_alive=services.limits.keep_alive_seconds,
        send_timeout=services.limits.send_timeout_seconds,
        headers=headers,
    )


def _size(tally: Tally) -> int:
    """About as many bytes as a tally has in an answer, without its text."""
    return _ENTRY_BYTES * (len(tally.logprobs) + len(tally.prompt_logprobs or ()))


def describe_failure(error: Exception, services: Services, path: str) -> Mapping[str, Any]:
    """The error event of a stream that fails after it began."""
    if isinstance(error, RequestAbortedError) and services.lifecycle.is_draining:
        error = EngineDrainingError("the server is shutting down; send the request again")
    reply = reply_to(error, path)
    if reply.status >= 500:
        _log.error("stream_failed", code=reply.code, exc_info=error)
    return reply.body()
