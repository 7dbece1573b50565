"""Takes jobs from the queue and runs them, each within an error boundary of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog
from cachetools import LRUCache

from server.measure.directions import RequestDirections
from server.store import ClaimedJob, JobRecord, JobStatus, Store
from server.store.canonical import canonical_json
from server.store.errors import JobLostError, StoreError

from .context import JobContext, JobServices
from .kind import JobKind

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
_MAX_PARSED_BYTES: Final = 8 * 2**20
"""Of the documents whose parsed requests are kept: tokens take some ten times as much."""


class Changes:
    """A signal that jobs have changed, for any number of waiters on one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wake all who wait now."""
        self._next.set()
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Return the event that the next change sets.

        Take it before looking at the store, so that a change in between is not missed.
        """
        return self._next

    @staticmethod
    async def wait(event: asyncio.Event, timeout_seconds: float) -> None:
        """Return when `event` is set, or after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await event.wait()


class JobObserver(Protocol):
    """Is told of jobs; the metrics implement it."""

    def job_ended(self, kind: str, status: str, seconds: float | None) -> None:
        """A job ended, `seconds` after its attempt began; None where it never began."""
        ...

    def jobs_counted(self, num_running: int, num_queued: int) -> None:
        """The number of jobs that run on this server, and of those that wait on all servers."""
        ...


@dataclass(frozen=True, slots=True)
class JobTimes:
    """The runner's intervals, in seconds.

    Attributes:
        tick: How often reports that jobs kept back are stored.
        beat: How often this server gives a sign of life and looks at the queue.
        silence: How long a server may give no sign of life before its jobs are interrupted.
        stop: How long jobs may take to end when the server stops.
    """

    tick: float = 1.0
    beat: float = 5.0
    silence: float = 30.0
    stop: float = 5.0


class _Parsed(NamedTuple):
    """A request as its kind has read it, the directions it found, and how long its document is."""

    value: Any
    directions: RequestDirections
    num_bytes: int


class JobRunner:
    """Runs a bounded number of jobs as tasks of the event loop that started it.

    Args:
        kinds: The kinds it can run, by name.
        services: What its jobs share.
        store: Holds the queue.
        max_running: Most jobs that run at once.
        describe: Makes the error body that is stored for a failed job.
        observer: Is told of every end of a job and of how many there are.
        changes: Notified whenever a job has changed.
        times: The intervals at which it looks around.
    """

    def __init__(
        self,
        kinds: Mapping[str, JobKind[Any]],
        services: JobServices,
        store: Store,
        *,
        max_running: int,
        describe: Callable[[Exception], Mapping[str, Any]],
        observer: JobObserver,
        changes: Changes,
        times: JobTimes,
    ) -> None:
        self._kinds = kinds
        self._services = services
        self._store = store
        self._max_running = max_running
        self._describe = describe
        self._observer = observer
        self._changes = changes
        self._times = times
        self._running: dict[str, JobContext] = {}
        self._parsed: LRUCache[str, _Parsed] = LRUCache(
            _MAX_PARSED_BYTES, getsizeof=lambda parsed: parsed.num_bytes
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called, after which no more jobs are begun."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Interrupt the jobs that a dead server left running, and begin with the queue."""
        only_server = not self._store.database.is_shared
        await self._try(
            self._services.runs.interrupt_abandoned, None if only_server else self._times.silence
        )
        works = [self._work() for _ in range(self._max_running)]
        self._tasks = [asyncio.create_task(work) for work in (*works, self._watch())]

    async def stop(self) -> None:
        """End every job as `interrupted`; those that wait stay queued. May be called twice."""
        self._stopping.set()
        for running in self._running.values():
            running.cancel()
        self._changes.notify()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._times.stop)
            for task in late:
                task.cancel()
        await self._try(self._services.runs.interrupt_own)
        self._services.threads.close()
        self._changes.notify()

    def keep_parsed(
        self, job_id: str, request: Mapping[str, Any], value: Any, directions: RequestDirections
    ) -> None:
        """Hold what the kind has read of a queued job's request until the job begins.

        What there is no room for, or another server runs, is read again from the store.
        """
        num_bytes = len(canonical_json(request))
        if num_bytes <= _MAX_PARSED_BYTES:
            self._parsed[job_id] = _Parsed(value, directions, num_bytes)

    def cancel(self, job_id: str) -> bool:
        """End a job that the store already shows as ended; returns whether it ran here."""
        self._parsed.pop(job_id, None)
        running = self._running.get(job_id)
        if running is not None:
            running.cancel()
        self._changes.notify()
        return running is not None

    async def count(self) -> None:
        """Tell the observer how many jobs there are."""
        queued = await self._try(self._store.jobs.num_queued)
        if queued is not None:
            self._observer.jobs_counted(len(self._running), queued)

    async def _work(self) -> None:
        while not self.is_stopping:
            changed = self._changes.next()
            claimed = await self._try(self._claim)
            if claimed is None:
                await Changes.wait(changed, self._times.beat)
            elif not self.is_stopping:
                await self._run(claimed.job, claimed.request)

    def _claim(self) -> ClaimedJob | None:
        fingerprint = self._services.engine.info().spec.fingerprint
        return self._services.runs.claim(fingerprint, list(self._kinds))

    async def _watch(self) -> None:
        """Store reports that were kept back, give signs of life, and look for lost jobs."""
        beat_at = time.monotonic()
        while not self.is_stopping:
            await Changes.wait(self._stopping, self._times.tick)
            for running in list(self._running.values()):
                await running.flush()
            if time.monotonic() - beat_at >= self._times.beat:
                beat_at = time.monotonic()
                await self._beat()

    async def _beat(self) -> None:
        mine = await self._try(self._services.runs.beat)
        for job_id, running in self._running.items():
            if mine is not None and job_id not in mine:
                running.cancel()
        await self._try(self._services.runs.interrupt_abandoned, self._times.silence)
        await self.count()

    async def _run(self, job: JobRecord, request: Mapping[str, Any]) -> None:
        began = time.monotonic()
        if (older := self._running.get(job.id)) is not None:
            older.cancel()  # it was taken for dead, resumed, and came back here
        running = self._running[job.id] = JobContext(job, self._services)
        self._changes.notify()
        task = running.begin(partial(self._attempt, self._kinds[job.kind], request, running))
        await asyncio.wait({task})
        await self._end(job, running, task)
        if self._running.get(job.id) is running:
            del self._running[job.id]
        ended = await self._try(self._store.jobs.get, job.id)
        is_final = ended is not None and ended.status.is_final
        status = ended.status if ended is not None and is_final else JobStatus.INTERRUPTED
        self._observer.job_ended(job.kind, status, time.monotonic() - began)
        await self.count()
        self._changes.notify()

    async def _attempt(
        self, kind: JobKind[Any], request: Mapping[str, Any], context: JobContext
    ) -> Mapping[str, Any]:
        parsed = self._parsed.pop(context.job_id, None)
        if parsed is not None and await context.compute(parsed.directions.is_current):
            return await kind.run(parsed.value, context)
        value = await context.compute(kind.parse, request, context.engine, context.directions)
        return await kind.run(value, context)

    async def _end(
        self, job: JobRecord, running: JobContext, task: asyncio.Future[Mapping[str, Any]]
    ) -> None:
        """Store how an attempt ended; a cancelled one is shown as such in the store already."""
        error = _error_of(task)
        if error is None:
            await self._persist(partial(self._services.runs.succeed, job.id, task.result()))
        elif not running.is_cancelled:
            body = self._describe(error)
            is_fault = body["error"]["type"] == "server_error"
            if is_fault:
                _log.error("job_failed", job_id=job.id, reason=str(error), exc_info=error)
            else:
                _log.info("job_failed", job_id=job.id, reason=str(error))
            message = str(body["error"]["message"])
            await self._persist(partial(self._services.runs.fail, job.id, body, message))

    async def _persist(self, store: Callable[[], None]) -> None:
        """Store an ending, trying again for as long as the store fails, until the server stops."""
        while True:
            try:
                return await self._services.pool.run(store)
            except JobLostError:
                return None
            except StoreError as error:
                _log.warning("job_end_not_stored", reason=str(error), message="trying again")
            if self.is_stopping:
                return None
            await Changes.wait(self._stopping, self._times.tick)

    async def _try(self, function: Callable[..., _T], *args: Any) -> _T | None:
        """Return what a function of the store returns, or None after logging that it failed."""
        try:
            return await self._services.pool.run(function, *args)
        except StoreError as error:
            _log.warning("job_store_not_ready", reason=str(error))
            return None


def _error_of(task: asyncio.Future[Mapping[str, Any]]) -> Exception | None:
    """Return why an attempt has no result that can be stored, or None where it has one."""
    if task.cancelled():
        return RuntimeError("the job's task was cancelled from within")
    error = task.exception()
    if error is not None:
        return error if isinstance(error, Exception) else RuntimeError(repr(error))
    try:
        canonical_json(task.result())
    except (TypeError, ValueError) as not_json:
        return not_json
    return None
