"""The jobs of a server as its routes see them: asked for, followed, cancelled, resumed."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.auth.permissions import Principal
from server.engine.engine import Engine
from server.engine.errors import EngineDrainingError
from server.measure.directions import RequestDirections
from server.pools import Pools
from server.registry.drafting import Drafting
from server.registry.upload import Uploader
from server.resolver.library import DirectionLibrary
from server.store import Actor, JobEvent, JobRecord, JobRuns, JobSpec, JobStatus, Store
from server.store.names import check_requires
from steering.errors import IncompatibleModelError, InvalidFieldError

from .context import JobServices
from .kind import JobKind
from .runner import Changes, JobObserver, JobRunner, JobTimes
from .threads import JobThreads


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How many jobs there may be.

    Attributes:
        max_running: Most jobs that run at once on this server.
        max_queued: Most jobs that wait, of all servers that share the store.
        num_threads: CPU threads that one operation of a job may use.
    """

    max_running: int = 1
    max_queued: int = 64
    num_threads: int = 1


class JobManager:
    """Takes in, follows and ends jobs; used on the event loop that started it.

    The queue is in the store, so that jobs which wait when a server stops still wait when it starts
    again.

    Args:
        kinds: The kinds of jobs that can be asked for.
        engine: Serves the jobs' requests.
        store: Keeps the jobs and what they make.
        uploader: Takes in directions for the engine's model.
        library: Loads stored directions.
        pools: The server's threads for calls to the store.
        limits: How many jobs there may be.
        describe: Makes the error body that is stored for a failed job.
        observer: Is told of every end of a job and of how many there are.
        times: The intervals of the runner; None for the defaults.
    """

    def __init__(
        self,
        kinds: Sequence[JobKind[Any]],
        engine: Engine,
        store: Store,
        *,
        uploader: Uploader,
        library: DirectionLibrary,
        pools: Pools,
        limits: JobLimits,
        describe: Callable[[Exception], Mapping[str, Any]],
        observer: JobObserver,
        times: JobTimes | None = None,
    ) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self.limits = limits
        self._engine = engine
        self._store = store
        self._pools = pools
        self._library = library
        self._changes = Changes()
        self._observer = observer
        self._times = times or JobTimes()
        runs = JobRuns(store.database, store.clock, uuid.uuid4().hex)
        threads = JobThreads(limits.max_running, limits.num_threads)
        self._runner = JobRunner(
            self.kinds,
            JobServices(
                engine,
                uploader,
                Drafting(store, library, uploader.spec),
                library,
                runs,
                threads,
                pools.jobs,
                self._changes.notify,
            ),
            store,
            max_running=limits.max_running,
            describe=describe,
            observer=observer,
            changes=self._changes,
            times=self._times,
        )

    async def start(self) -> None:
        """Begin to run jobs; jobs that a dead server left running become `interrupted`."""
        await self._runner.start()

    async def stop(self) -> None:
        """Begin no more jobs; those that run become `interrupted`."""
        await self._runner.stop()

    async def create(
        self,
        kind: str,
        request: Mapping[str, Any],
        *,
        caller: Principal,
        by: Actor,
        rerun_of: str | None = None,
    ) -> JobRecord:
        """Check a request and queue it.

        Raises:
            InvalidFieldError: There is no such kind.
            PermissionDeniedError: The request, or a direction that it names, requires a
                permission that the caller lacks.
            JobQueueFullError: Too many jobs wait.
            Exception: What the kind's `parse` raises.
        """
        found = self._kind(kind)
        declared = found.requires(request)
        check_requires(declared)
        caller.require(*declared, param="requires")
        directions = RequestDirections(self._library.get, caller.require, self._engine.info().spec)
        parsed = await self._pools.bulk.run(found.parse, request, self._engine, directions)
        requires = tuple(sorted({*declared, *directions.permissions}))
        spec = JobSpec(kind, request, self._fingerprint, requires, rerun_of)
        job = await self._pools.writes.run(
            self._store.jobs.create, spec, by=by, max_queued=self.limits.max_queued
        )
        self._runner.keep_parsed(job.id, request, parsed, directions)
        return await self._changed(job)

    async def get(self, job_id: str) -> JobRecord:
        """Return one job.

        Raises:
            JobNotFoundError: There is no such job.
        """
        return await self._pools.reads.run(self._store.jobs.get, job_id)

    async def cancel(self, job_id: str, *, by: Actor) -> JobRecord:
        """End a job; what runs for it ends within one batch of the engine.

        Raises:
            JobNotFoundError: There is no such job.
            JobFinishedError: The job has ended otherwise.
        """
        before = await self.get(job_id)
        job = await self._pools.writes.run(self._store.jobs.cancel, job_id, by=by)
        if not self._runner.cancel(job_id) and not before.status.is_final:
            self._observer.job_ended(job.kind, job.status, None)
        return await self._changed(job)

    async def resume(self, job_id: str, *, caller: Principal, by: Actor) -> JobRecord:
        """Queue again a job that did not succeed; it goes on with what it remembers.

        Raises:
            JobNotFoundError: There is no such job.
            ConflictError: The job waits, runs or has succeeded.
            IncompatibleModelError: The job belongs to another model.
            PermissionDeniedError: The job requires a permission that the caller lacks.
            JobQueueFullError: Too many jobs wait.
        """
        job = await self.get(job_id)
        caller.require(*job.requires)
        self._kind(job.kind)
        if job.model_fingerprint != self._fingerprint:
            raise IncompatibleModelError(
                f"job {job_id} belongs to a model with fingerprint "
                f"{job.model_fingerprint[:16]}, not {self._fingerprint[:16]}; rerun it to do "
                "it with this one"
            )
        resumed = await self._pools.writes.run(
            self._store.jobs.resume, job_id, by=by, max_queued=self.limits.max_queued
        )
        return await self._changed(resumed)

    async def rerun(self, job_id: str, *, caller: Principal, by: Actor) -> JobRecord:
        """Queue a new job with the request of another.

        Raises:
            JobNotFoundError: There is no such job.
            Exception: As `create`.
        """
        job = await self.get(job_id)
        request = await self._pools.reads.run(self._store.jobs.request, job_id)
        return await self.create(job.kind, request, caller=caller, by=by, rerun_of=job.id)

    async def follow(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """Yield every event numbered above `after`, as it happens, until the job has ended.

        Raises:
            JobNotFoundError: There is no such job.
            EngineDrainingError: The server stops, and the job still waits.
        """
        while True:
            changed = self._changes.next()
            for event in await self._pools.reads.run(self._store.jobs.events, job_id, after):
                after = event.number
                yield event
            job = await self.get(job_id)
            if job.num_events > after:
                continue
            if job.status.is_final:
                return
            if self._runner.is_stopping and job.status is JobStatus.QUEUED:
                raise EngineDrainingError("the server is shutting down; the job stays in the queue")
            await Changes.wait(changed, self._times.beat)

    @property
    def _fingerprint(self) -> str:
        return self._engine.info().spec.fingerprint

    def _kind(self, name: str) -> JobKind[Any]:
        kind = self.kinds.get(name)
        if kind is None:
            known = ", ".join(self.kinds) or "none"
            raise InvalidFieldError(f"kind is {name[:80]!r}; expected one of {known}", param="kind")
        return kind

    async def _changed(self, job: JobRecord) -> JobRecord:
        self._changes.notify()
        await self._runner.count()
        return job
