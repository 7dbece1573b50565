"""How a generation route answers: at once or as a stream, with log-probabilities where asked."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import structlog
from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.api.deps import Services
from server.api.http.body import Offload
from server.api.http.error_table import reply_to
from server.api.http.sse import DONE, EventStream, Numbered, event_text, until_disconnect
from server.api.schemas.sampling import StreamOptions
from server.engine.errors import EngineDrainingError, RequestAbortedError
from server.engine.outputs import RequestOutput, TokenLogprob, TokenLogprobs

from .outputs import ChoiceOutput
from .run import GenerationRun

_ENTRY_BYTES: Final = 256  # of a token with its log-probabilities, in JSON
_LEAST_LOGPROB: Final = -9999.0  # JSON has no minus infinity; vLLM writes the same
_log = structlog.get_logger(__name__)

_Events = AsyncGenerator[Mapping[str, Any] | str | Numbered, None]


async def respond(
    request: Request,
    services: Services,
    run: GenerationRun,
    answer: Callable[[GenerationRun], Mapping[str, Any]],
    events: Callable[[GenerationRun, Offload], _Events],
    *,
    is_stream: bool,
) -> Response:
    """Run the request, and answer by `answer` or, where a stream is asked for, by `events`.

    Raises:
        EngineError: Nothing has been sent yet.
        ClientDisconnect: The client left; the sequences are aborted.
    """
    headers = {"x-steering-applied": run.steering.header}
    if not is_stream:
        await until_disconnect(request.receive, run.finish())
        # It grows with the body, which may be echoed, and with every log-probability.
        size = getattr(request.state, "body_bytes", 0) + sum(map(_size, run.sequences))
        return await services.offload.run_sized(
            size, lambda: JSONResponse(answer(run), headers=headers)
        )
    rest = events(run, services.offload)
    first = await until_disconnect(request.receive, anext(rest))
    return EventStream(
        first,
        rest,
        describe=lambda error: describe_failure(error, services, request.url.path),
        keep_alive=services.limits.keep_alive_seconds,
        send_timeout=services.limits.send_timeout_seconds,
        headers=headers,
    )


def _size(output: ChoiceOutput) -> int:
    """Estimate the bytes that a choice takes in an answer, without its text."""
    return _ENTRY_BYTES * (len(output.logprobs) + len(output.prompt_logprobs or ()))


def whole_answer(
    run: GenerationRun, kind: str, choice: Callable[[int, ChoiceOutput], dict[str, Any]]
) -> dict[str, Any]:
    """Return a finished run as one answer whose `object` is `kind`.

    `choice` writes a choice from its index and its output. The unsteered choices of a comparison
    stand in `steering.baseline`.
    """
    answer = run.identity.document(kind)
    answer["choices"] = [choice(*item) for item in enumerate(run.choices)]
    answer["usage"] = run.usage()
    answer.update(run.reports())
    if run.baseline_choices:
        baseline = [choice(*item) for item in enumerate(run.baseline_choices)]
        answer["steering"]["baseline"] = {"choices": baseline}
    return answer


async def chunk_events(
    run: GenerationRun,
    kind: str,
    options: StreamOptions | None,
    chunks: Callable[[int, RequestOutput], Iterable[dict[str, Any]]],
    offload: Offload,
) -> AsyncGenerator[dict[str, Any] | str, None]:
    """Yield the events of a streamed answer, which joined are the whole answer.

    Args:
        run: The run, which begins with the first event.
        kind: The `object` of each chunk.
        options: Whether usage is told beside the choices, at the end or in every chunk.
        chunks: Makes the chunks, in order, of a choice's index and an output of it. A chunk that
            holds nothing is left out.
        offload: Makes the chunks that have the log-probabilities of a long prompt.
    """
    with_usage = options is not None and options.include_usage
    continuous = options is not None and options.continuous_usage_stats

    def to_events(index: int, output: RequestOutput) -> list[str]:
        written = [chunk for chunk in chunks(index, output) if _holds_something(chunk)]
        if run.is_finished and not with_usage:
            written[-1].update(run.reports())  # a finish reason was written
        for chunk in written:
            if continuous:
                chunk["usage"] = run.usage()
            elif with_usage:
                chunk["usage"] = None
        return [event_text({**run.identity.document(kind), **chunk}) for chunk in written]

    async with aclosing(run.outputs()) as outputs:
        async for index, output in outputs:
            size = _ENTRY_BYTES * len(output.prompt_logprobs or ())
            for event in await offload.run_sized(size, to_events, index, output):
                yield event
    if with_usage:
        last = run.identity.document(kind)
        yield {**last, "choices": [], "usage": run.usage(), **run.reports()}
    yield DONE


def _holds_something(part: Any) -> bool:
    """Return whether any member of a chunk, except its choice's index, holds something.

    It looks at the finished chunk, so that no member that is added to chunks can be forgotten.
    """
    if isinstance(part, Mapping):
        return any(_holds_something(value) for name, value in part.items() if name != "index")
    if isinstance(part, list):
        return any(not isinstance(item, Mapping) or _holds_something(item) for item in part)
    return part is not None and part != ""


def describe_failure(error: Exception, services: Services, path: str) -> Mapping[str, Any]:
    """Return the error event of a stream that fails after it began."""
    if isinstance(error, RequestAbortedError) and services.lifecycle.is_draining:
        error = EngineDrainingError("the server is shutting down; send the request again")
    reply = reply_to(error, path)
    if reply.status >= 500:
        _log.error("stream_failed", code=reply.code, exc_info=error)
    return reply.body()


def chat_logprobs(
    entries: Sequence[TokenLogprobs], token_bytes: Callable[[int], bytes]
) -> dict[str, Any]:
    """Return the `logprobs` of a chat's choice.

    Each token has its bytes, because it may be a part of a character.
    """

    def entry(token: TokenLogprob) -> dict[str, Any]:
        data = list(token_bytes(token.token_id))
        return {"token": token.text, "logprob": _finite(token.logprob), "bytes": data}

    content = [
        {**entry(item.chosen), "top_logprobs": [entry(token) for token in item.top]}
        for item in entries
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    entries: Sequence[TokenLogprobs | None], first_text: str = "", offset: int = 0
) -> dict[str, Any]:
    """Return the `logprobs` of a completion's choice: parallel lists with an entry for each token.

    Args:
        entries: By token; None for the first token of an echoed prompt, which has none.
        first_text: That token's text.
        offset: Characters of the choice's text before these tokens.
    """
    tokens, values, tops, offsets = [], [], [], []
    for item in entries:
        text = first_text if item is None else item.chosen.text
        tokens.append(text)
        values.append(None if item is None else _finite(item.chosen.logprob))
        tops.append(None if item is None else _by_text(item))
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def prompt_logprobs(entries: Sequence[TokenLogprobs | None]) -> list[dict[str, Any] | None]:
    """Return vLLM's `prompt_logprobs`: for each token a map by token id, None for the first."""
    return [None if item is None else _by_id(item) for item in entries]


def _by_text(item: TokenLogprobs) -> dict[str, float]:
    by_text: dict[str, float] = {}
    for token in (*item.top, item.chosen):
        by_text.setdefault(token.text, _finite(token.logprob))
    return by_text


def _by_id(item: TokenLogprobs) -> dict[str, Any]:
    by_id = {}
    ranks = {token.token_id: rank for rank, token in enumerate(item.top, start=1)}
    for token in (item.chosen, *item.top):
        by_id[str(token.token_id)] = {
            "logprob": _finite(token.logprob),
            "rank": ranks.get(token.token_id),
            "decoded_token": token.text,
        }
    return by_id


def _finite(value: float) -> float:
    return value if math.isfinite(value) else _LEAST_LOGPROB
