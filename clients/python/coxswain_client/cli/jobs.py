"""`coxctl jobs`."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from coxswain_client.models.jobs import Job

from .options import AsJson, argument, client_of, group, option
from .output import all_pages, show, show_table
from .watching import watch_job

__all__ = ["jobs"]

_MESSAGE_CHARS = 60
_COLUMNS = ("id", "kind", "name", "status", "progress", "message")

jobs = group("Work of the server on its own model.")

_JobId = Annotated[str, argument("JOB_ID")]
_Watch = Annotated[bool, option("--watch", help="Follow it to its end.")]


@jobs.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[
        str | None,
        option(help="queued, running, succeeded, failed, cancelled or interrupted."),
    ] = None,
    kind: Annotated[str | None, option(help="Such as fit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    client = client_of(ctx)
    found = all_pages(lambda cursor: client.jobs.list(status=status, kind=kind, cursor=cursor))
    shown = list(found) if as_json else list(map(_shortened, found))
    show_table(shown, _COLUMNS, as_json=as_json)


@jobs.command("show")
def show_(ctx: typer.Context, job_id: _JobId) -> None:
    """One job, with its request and its result."""
    show(client_of(ctx).jobs.retrieve(job_id))


@jobs.command()
def watch(ctx: typer.Context, job_id: _JobId) -> None:
    """Follow JOB_ID to its end and print what it made."""
    watch_job(client_of(ctx), job_id)


@jobs.command()
def cancel(ctx: typer.Context, job_id: _JobId) -> None:
    """End JOB_ID."""
    show(client_of(ctx).jobs.cancel(job_id))


@jobs.command()
def resume(ctx: typer.Context, job_id: _JobId, watch: _Watch = False) -> None:
    """Go on with JOB_ID, which was interrupted, cancelled or failed."""
    _show_or_watch(ctx, client_of(ctx).jobs.resume(job_id), is_watched=watch)


@jobs.command()
def rerun(ctx: typer.Context, job_id: _JobId, watch: _Watch = False) -> None:
    """Do once more, as a new job, what JOB_ID was asked to do."""
    _show_or_watch(ctx, client_of(ctx).jobs.rerun(job_id), is_watched=watch)


def _show_or_watch(ctx: typer.Context, job: Job, *, is_watched: bool) -> None:
    if is_watched:
        watch_job(client_of(ctx), job.id, after=job.num_events - 1)
    else:
        show(job)


def _shortened(job: Job) -> Job:
    """The job with a message and a progress that fit into a table."""
    message = textwrap.shorten(job.message, _MESSAGE_CHARS, placeholder="...")
    return job.model_copy(update={"message": message, "progress": round(job.progress, 2)})
