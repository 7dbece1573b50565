"""What a running job may use: the engine, its own progress, memory and outputs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import structlog

from server.auth.permissions import Permission, PermissionDeniedError, Principal
from server.engine.engine import Engine
from server.measure.directions import RequestDirections
from server.pools import Pool
from server.registry.drafting import Drafting
from server.registry.upload import Uploader
from server.resolver.library import DirectionLibrary
from server.store import Actor, JobRecord, JobRuns
from server.store.errors import JobLostError, StoreError
from steering.directions import Direction
from steering.model_spec import ModelSpec

from .threads import JobThreads

_T = TypeVar("_T")
_INTERVAL_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobServices:
    """What all jobs of a server share.

    Attributes:
        engine: The server's engine, which serves their requests beside the chats.
        uploader: Stores the directions that they make.
        drafting: Stores the profiles that they make.
        library: Loads stored directions.
        runs: Where their progress and what they remember are stored.
        threads: Run what they compute.
        pool: Runs their calls to the store.
        changed: Called after a job has stored progress, to wake those who follow it.
    """

    engine: Engine
    uploader: Uploader
    drafting: Drafting
    library: DirectionLibrary
    runs: JobRuns
    threads: JobThreads
    pool: Pool
    changed: Callable[[], None]


class JobContext:
    """One attempt at a job, as its kind's `run` sees it; used on the event loop only.

    A cancelled job gets `asyncio.CancelledError` at its next await, within one batch of the engine;
    `run` lets it through. After a restart a job may be resumed: `run` is called again with the same
    request, and `recall` gives what the earlier attempts remembered.

    `begin`, `cancel`, `is_cancelled` and `flush` are the runner's.

    Args:
        job: The record as it was when this server claimed the job.
        services: What all jobs share.
    """

    def __init__(self, job: JobRecord, services: JobServices) -> None:
        self._job = job
        self._services = services
        self._task: asyncio.Future[Any] | None = None
        self._is_cancelled = False
        self._pending: tuple[float, str] | None = None
        self._reported_at = -math.inf
        self._flushing = asyncio.Lock()

    @property
    def job_id(self) -> str:
        """The job's id; requests to the engine should carry it in theirs."""
        return self._job.id

    @property
    def engine(self) -> Engine:
        """The server's engine; ask at `Priority.JOB`, so that chats go first."""
        return self._services.engine

    @property
    def spec(self) -> ModelSpec:
        """The specification of the engine's model."""
        return self.engine.info().spec

    @property
    def directions(self) -> RequestDirections:
        """Stored directions, for the kind's `parse`; to be used by `compute`."""
        return RequestDirections(self._services.library.get, self._allow, self.spec)

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    def begin(self, work: Callable[[], Awaitable[Mapping[str, Any]]]) -> asyncio.Task[Any]:
        """Start the work as a task, which `cancel` ends; called once."""

        async def result() -> Mapping[str, Any]:
            return await work()  # called in the task, so that whatever it raises is the task's

        self._task = asyncio.create_task(result())
        return self._task

    def cancel(self) -> None:
        """End the task at its next await; this context refuses whatever it still asks."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def report(self, fraction: float, message: str) -> None:
        """Say what the job does now and how far it is; `fraction` is between 0 and 1.

        The message is shown and stored, so it must not hold users' texts. At most one report a
        second is stored; those between are kept back, and the last of them is stored by `flush`.

        Raises:
            asyncio.CancelledError: The job was cancelled, or belongs to another server by now.
        """
        await asyncio.sleep(0)  # a kind that only ever reports can still be cancelled
        self._check()
        self._pending = (min(max(fraction, 0.0), 1.0), message)
        if time.monotonic() - self._reported_at >= _INTERVAL_SECONDS:
            await self.flush()
            self._check()

    async def flush(self) -> None:
        """Store the report that was kept back, if any; a failure to store it is only logged."""
        async with self._flushing:
            pending, self._pending = self._pending, None
            if pending is None:
                return
            self._reported_at = time.monotonic()
            try:
                await self._services.pool.run(self._services.runs.report, self.job_id, *pending)
            except JobLostError:
                self.cancel()
            except StoreError as error:
                _log.warning("job_progress_not_stored", job_id=self.job_id, reason=str(error))
            else:
                self._services.changed()

    async def compute(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Return what `function` returns, called in one of the jobs' threads (`JobThreads`).

        This is for work that would hold up the event loop, such as fits. A running function is
        not interrupted: a cancelled job ends at once, its thread when the function returns.
        """
        self._check()
        return await self._services.threads.run(function, *args, **kwargs)

    async def save_direction(self, direction: Direction) -> str:
        """Store a direction and return `name@version`; equal tensors are the same version.

        The permissions that the job requires are added to what it requires by itself.

        Raises:
            SteeringError: The direction does not fit the model.
            StoreError: It cannot be stored.
        """
        self._check()
        made = replace(
            direction,
            requires=tuple(sorted({*direction.requires, *self._job.requires})),
            provenance={**direction.provenance, "job": self.job_id},
        )
        return await self._guarded(self._save, made)

    async def save_draft(self, name: str, document: Mapping[str, Any]) -> str:
        """Store a profile as a draft and return `name@version`; an equal one is the same version.

        The permissions that the job requires are added to what it requires by itself.

        Raises:
            InvalidProfileError: The profile does not fit the model.
            StoreError: It cannot be stored.
        """
        self._check()
        requires = sorted({*document.get("requires", ()), *self._job.requires})
        return await self._guarded(self._save_draft, name, {**document, "requires": requires})

    async def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value for `recall` under `key`, until the job has succeeded.

        Raises:
            StoreError: The value cannot be stored, or is longer than `MAX_VALUE_BYTES`.
        """
        self._check()
        await self._guarded(self._services.runs.remember, self.job_id, key, value)

    async def recall(self, key: str) -> Any:
        """Return what this attempt or an earlier one remembered under `key`, or None."""
        return await self._services.pool.run(self._services.runs.recall, self.job_id, key)

    async def _guarded(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function of the store; where it finds the job lost, this attempt is cancelled."""
        try:
            return await self._services.pool.run(function, *args)
        except JobLostError:
            self.cancel()
            raise asyncio.CancelledError from None

    def _save(self, direction: Direction) -> str:
        self._services.runs.require_own(self.job_id)
        uploader = self._services.uploader
        return uploader.from_direction(direction, by=self._actor).saved.record.reference

    def _save_draft(self, name: str, document: Mapping[str, Any]) -> str:
        self._services.runs.require_own(self.job_id)
        drafting = self._services.drafting
        # What it was given is all it may do; whoever asked for it may have lost it since.
        permissions = frozenset(map(Permission, self._job.requires))
        caller = Principal(self._job.created_by, f"of job {self.job_id}", permissions)
        saved = drafting.save(name, document, caller=caller, by=self._actor, publish=False)
        return saved.record.reference

    @property
    def _actor(self) -> Actor:
        return Actor(key_id=self._job.created_by, request_id=self.job_id)

    def _allow(self, *permissions: str, param: str) -> None:
        """Refuse a direction that came to require more after the job was asked for."""
        missing = sorted(set(permissions) - set(self._job.requires))
        if missing:
            raise PermissionDeniedError(
                f"{param} names a direction that requires {', '.join(missing)}, which the job was "
                "not given; rerun it with a key that has it",
                param=param,
            )

    def _check(self) -> None:
        if self._is_cancelled:
            raise asyncio.CancelledError


class Progress:
    """Reports a job of several stages: batches of the current stage become the job's fraction."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._start = self._width = 0.0
        self._num_calls = 1
        self._num_done = 0
        self._message = ""

    async def begin(self, start: float, stop: float, message: str, *, num_calls: int = 1) -> None:
        """Enter a stage that takes the job's fraction from `start` to `stop`.

        The stage is made of `num_calls` measurements, each of which calls `on_batch` until it has
        measured everything.
        """
        self._start, self._width = start, (stop - start) / num_calls
        self._num_calls, self._num_done, self._message = num_calls, 0, message
        await self._context.report(round(start, 6), message)

    async def on_batch(self, done: int, total: int) -> None:
        """Report that `done` of `total` of the current measurement are done; for `Instrument`."""
        calls = min(self._num_done + done / total, self._num_calls)
        fraction = round(self._start + self._width * calls, 6)  # never back by a rounding error
        await self._context.report(fraction, self._message)
        self._num_done += done == total
