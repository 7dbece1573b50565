"""The interface of an engine: what the API layer and jobs may ask of any back end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .outputs import CaptureResult, EngineInfo, EngineStats, RequestOutput, ScoreResult
from .request import CaptureRequest, GenerationRequest, ScoreRequest

if TYPE_CHECKING:
    from .text import Tokenizer

__all__ = ["Engine", "gather_or_cancel"]

_Result = TypeVar("_Result")


class Engine(Protocol):
    """Serves many requests at once, each under its own steering."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back; safe to use from any thread."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        """Generate; the last output, and only it, has a `finish_reason`.

        The request is validated and queued when the iterator is first awaited. Closing the
        iterator aborts the request within one step.

        Raises:
            RequestRejectedError: Before the first output: refused at admission.
            GenerationError: This request failed.
            EngineDeadError: The step failed as a whole.
        """
        ...

    async def capture(self, request: CaptureRequest) -> CaptureResult:
        """Read activations at sites for prompts; raises as `generate`."""
        ...

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Log-probabilities of known text under some steering; raises as `generate`."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request within one step; unknown ids are ignored."""
        ...

    def info(self) -> EngineInfo:
        """What is fixed after load."""
        ...

    def stats(self) -> EngineStats:
        """What changes while serving."""
        ...

    async def drain(self, timeout_seconds: float) -> None:
        """Refuse new requests, let running ones finish, fail those left at the timeout."""
        ...


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """All results in order; the first that fails, whichever it is, ends the others.

    It returns only when all have ended, so what they asked of an engine is no longer asked.
    `asyncio.gather` leaves the others running, and a loop that awaits one after another does not
    see a failure before its turn.

    Raises:
        Exception: That of the one that failed first, as it was raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except* Exception as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
