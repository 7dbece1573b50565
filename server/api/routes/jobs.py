"""`/v1/steering/jobs`: ask for work on the server's own model, watch it, end it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.deps import ActorDep, CallerDep, ServicesDep, operation
from server.api.generation.answer import describe_failure
from server.api.http.errors import InvalidParameterError
from server.api.http.listing import Listing, Paging, reply
from server.api.http.sse import DONE, EventStream, Numbered
from server.api.idempotency import IDEMPOTENCY_KEY, idempotent
from server.api.request_body import IdempotentBody
from server.api.schemas.answers import Page
from server.api.schemas.jobs import Job, JobEvent, JobRequest, JobWithRequest
from server.auth.permissions import Permission
from server.jobs.manager import JobManager
from server.store import JobRecord, JobStatus

router = APIRouter(prefix="/v1/steering/jobs", tags=["Jobs"])

_LAST_EVENT_ID: Final[dict[str, Any]] = {
    "in": "header",
    "name": "Last-Event-ID",
    "description": "Number of the last event seen; those after it are sent.",
    "schema": {"type": "string"},
}

_Body = Annotated[JobRequest, Depends(IdempotentBody(JobRequest))]


@router.post(
    "",
    status_code=202,
    response_model=Job,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY),
)
@idempotent()
async def create_job(
    asked: _Body, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Check a request for a job and queue it."""
    del request  # for `idempotent`
    job = await services.jobs.create(asked.kind, asked.request(), caller=caller, by=actor)
    return _accepted(job)


@router.get("", openapi_extra=operation(Permission.ADMIN))
async def list_jobs(
    asked: Annotated[Paging, Depends(Listing(status=JobStatus, kind=None))], services: ServicesDep
) -> Page[Job]:
    """Jobs, newest first; `status` and `kind` keep some."""
    found = await services.pools.reads.run(
        services.store.jobs.list,
        asked.cursor,
        asked.limit,
        **asked.filters,
    )
    return Page[Job].listing(found, Job.of_record)


@router.get("/{job_id}", openapi_extra=operation(Permission.ADMIN))
async def get_job(job_id: str, services: ServicesDep) -> JobWithRequest:
    """One job, with its request, and its result or error when it has ended."""
    job = await services.jobs.get(job_id)
    request = await services.pools.reads.run(services.store.jobs.request, job_id)
    return JobWithRequest.of_record(job, request=dict(request))


@router.get(
    "/{job_id}/events",
    status_code=200,
    response_class=EventStream,
    openapi_extra=operation(Permission.ADMIN, _LAST_EVENT_ID),
)
async def follow_job(job_id: str, request: Request, services: ServicesDep) -> Response:
    """Progress as server-sent events until the job has ended; leaving does not end it."""
    job = await services.jobs.get(job_id)
    after = _last_event(request, job)
    return EventStream(
        None,
        _events(services.jobs, job_id, after),
        describe=lambda error: describe_failure(error, services, request.url.path),
        keep_alive=services.limits.keep_alive_seconds,
        send_timeout=services.limits.send_timeout_seconds,
    )


@router.delete("/{job_id}", openapi_extra=operation(Permission.ADMIN))
async def cancel_job(job_id: str, services: ServicesDep, actor: ActorDep) -> Job:
    """End a job that waits or runs; 409 where it has ended otherwise."""
    return Job.of_record(await services.jobs.cancel(job_id, by=actor))


@router.post(
    "/{job_id}/resume",
    status_code=202,
    response_model=Job,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY),
)
@idempotent()
async def resume_job(
    job_id: str, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Queue an interrupted, cancelled or failed job again; it goes on where it was."""
    del request  # for `idempotent`
    return _accepted(await services.jobs.resume(job_id, caller=caller, by=actor))


@router.post(
    "/{job_id}/rerun",
    status_code=202,
    response_model=Job,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY),
)
@idempotent()
async def rerun_job(
    job_id: str, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Queue a new job with the same request."""
    del request  # for `idempotent`
    return _accepted(await services.jobs.rerun(job_id, caller=caller, by=actor))


async def _events(
    jobs: JobManager, job_id: str, after: int
) -> AsyncGenerator[Numbered | str, None]:
    async for event in jobs.follow(job_id, after):
        yield Numbered(event.number, JobEvent.of_record(job_id, event).model_dump(mode="json"))
    yield DONE


def _last_event(request: Request, job: JobRecord) -> int:
    """Number of the last event the client has seen; 0 for none."""
    text = request.headers.get("last-event-id", "0")
    if not (text.isascii() and text.isdecimal() and int(text[:9]) <= job.num_events):
        raise InvalidParameterError(
            f"Last-Event-ID: expected the id of an event of this job, 1 to {job.num_events}",
            param="Last-Event-ID",
        )
    return int(text[:9])


def _accepted(job: JobRecord) -> Response:
    return reply(Job.of_record(job), 202, location=f"/v1/steering/jobs/{job.id}")
