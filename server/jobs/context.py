"""What a running job may use: the engine, its own progress, memory and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from server.engine.engine import Engine
from server.measure.directions import RequestDirections
from steering.directions import Direction
from steering.model_spec import ModelSpec

__all__ = ["JobContext", "Progress"]

_T = TypeVar("_T")


class JobContext(Protocol):
    """Given to a kind's `run`; used on the event loop only.

    A cancelled job gets `asyncio.CancelledError` at its next await, within one batch of the engine;
    `run` lets it through. After a restart a job may be resumed: `run` is called again with the same
    request, and `recall` gives what the earlier attempts remembered.
    """

    @property
    def job_id(self) -> str:
        """The job's id; requests to the engine should carry it in theirs."""
        ...

    @property
    def engine(self) -> Engine:
        """The server's engine; ask at `Priority.JOB`, so that chats go first."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """Of the engine's model."""
        ...

    @property
    def directions(self) -> RequestDirections:
        """Stored directions, for the kind's `parse`; to be used by `compute`."""
        ...

    async def report(self, fraction: float, message: str) -> None:
        """Say how far the job is: `fraction` of 1, and what it does now, without users' texts.

        Cheap to call often: what follows too soon is kept for the next event.

        Raises:
            asyncio.CancelledError: The job was cancelled, or belongs to another server by now.
        """
        ...

    async def compute(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """What `function` returns, run in a thread of its own with few BLAS and torch threads.

        For fits that would hold up the event loop. A function that runs is not interrupted: the
        job ends at once when cancelled, the thread when the function returns.
        """
        ...

    async def save_direction(self, direction: Direction) -> str:
        """Store a direction and return `name@version`; equal tensors are the same version.

        It gets the scopes that the job's request requires beside its own.

        Raises:
            SteeringError: It does not fit the model.
            StoreError: It cannot be stored.
        """
        ...

    async def save_draft(self, name: str, document: Mapping[str, Any]) -> str:
        """Store a profile as a draft and return `name@version`; an equal one is the same version.

        It gets the scopes that the job's request requires beside its own.

        Raises:
            InvalidProfileError: It does not fit the model.
            StoreError: It cannot be stored.
        """
        ...

    async def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value for `recall` under `key`, until the job has succeeded.

        Raises:
            StoreError: It cannot be stored, or is over the limit.
        """
        ...

    async def recall(self, key: str) -> Any:
        """What was remembered under `key` by this attempt or an earlier one; None for nothing."""
        ...


class Progress:
    """Turns batches of the current stage into the job's fraction."""

    def __init__(self, context: JobContext) -> None:
        """Report to `context`."""
        self._context = context
        self._start = self._width = 0.0
        self._num_calls = 1
        self._num_done = 0
        self._message = ""

    async def begin(self, start: float, stop: float, message: str, *, num_calls: int = 1) -> None:
        """Enter a stage that takes the job from `start` to `stop` in so many measurements."""
        self._start, self._width = start, (stop - start) / num_calls
        self._num_calls, self._num_done, self._message = num_calls, 0, message
        await self._context.report(round(start, 6), message)

    async def on_batch(self, done: int, total: int) -> None:
        """A measurement has got so far; for `Instrument`."""
        calls = min(self._num_done + done / total, self._num_calls)
        fraction = round(self._start + self._width * calls, 6)  # never back by a rounding error
        await self._context.report(fraction, self._message)
        self._num_done += done == total
