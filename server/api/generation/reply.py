"""The second half of every generation route: run, then answer whole or as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import structlog
from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.api.deps import Services
from server.api.http.body import Desk
from server.api.http.error_table import reply_to
from server.api.http.sse import DONE, EventStream, Numbered, event_text, until_disconnect
from server.api.schemas.sampling import StreamOptions
from server.engine.errors import EngineDrainingError, RequestAbortedError
from server.engine.outputs import RequestOutput

from .run import Run
from .tally import Tally

__all__ = ["chunk_events", "describe_failure", "respond"]

_ENTRY_BYTES: Final = 256
_log = structlog.get_logger(__name__)

_Events = AsyncGenerator[Mapping[str, Any] | str | Numbered, None]


async def respond(
    request: Request,
    services: Services,
    run: Run,
    answer: Callable[[Run], Mapping[str, Any]],
    events: Callable[[Run, Desk], _Events],
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
    rest = events(run, services.desk)
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


async def chunk_events(
    run: Run,
    kind: str,
    options: StreamOptions | None,
    chunks: Callable[[int, RequestOutput], Iterable[dict[str, Any]]],
    desk: Desk,
) -> AsyncGenerator[dict[str, Any] | str, None]:
    """The events of a streamed answer: joined, they are the whole answer.

    Args:
        run: What is told.
        kind: The `object` of a chunk.
        options: What comes beside the choices.
        chunks: From an output and its choice's index to chunks, in order; those that hold nothing
            are left out.
        desk: Where a chunk is made that has the log-probabilities of a long prompt.
    """
    with_usage = options is not None and options.include_usage
    continuous = options is not None and options.continuous_usage_stats

    def tell(index: int, output: RequestOutput) -> list[str]:
        told = [chunk for chunk in chunks(index, output) if _holds_something(chunk)]
        if run.is_finished and not with_usage:
            told[-1]["steering"] = run.report()  # a finish reason was told
        for chunk in told:
            if continuous:
                chunk["usage"] = run.usage()
            elif with_usage:
                chunk["usage"] = None
        return [event_text({**run.head.document(kind), **chunk}) for chunk in told]

    async with aclosing(run.outputs()) as outputs:
        async for index, output in outputs:
            size = _ENTRY_BYTES * len(output.prompt_logprobs or ())
            for event in await desk.run_sized(size, tell, index, output):
                yield event
    if with_usage:
        last = run.head.document(kind)
        yield {**last, "choices": [], "usage": run.usage(), "steering": run.report()}
    yield DONE


def _holds_something(part: Any) -> bool:
    """Whether any member of a chunk does; which choice it is of is none of it.

    Asked of the finished chunk, so that it cannot forget a member that a chunk comes to have.
    """
    if isinstance(part, Mapping):
        return any(_holds_something(value) for name, value in part.items() if name != "index")
    if isinstance(part, list):
        return any(not isinstance(item, Mapping) or _holds_something(item) for item in part)
    return part is not None and part != ""


def describe_failure(error: Exception, services: Services, path: str) -> Mapping[str, Any]:
    """The error event of a stream that fails after it began."""
    if isinstance(error, RequestAbortedError) and services.lifecycle.is_draining:
        error = EngineDrainingError("the server is shutting down; send the request again")
    reply = reply_to(error, path)
    if reply.status >= 500:
        _log.error("stream_failed", code=reply.code, exc_info=error)
    return reply.body()
