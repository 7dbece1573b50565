"""`coxctl jobs`."""

from __future__ import annotations

import textwrap

import click

from coxswain_client.client import Coxswain
from coxswain_client.models.jobs import Job

from .output import show, show_table
from .paging import every
from .watching import watch_job

__all__ = ["jobs"]

_MESSAGE_CHARS = 60
_COLUMNS = ("id", "kind", "name", "status", "progress", "message")


@click.group()
def jobs() -> None:
    """Work of the server on its own model."""


@jobs.command("list")
@click.option("--status", help="queued, running, succeeded, failed, cancelled or interrupted.")
@click.option("--kind", help="Such as fit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(client: Coxswain, *, status: str | None, kind: str | None, as_json: bool) -> None:
    """Jobs, newest first."""
    found = every(lambda cursor: client.jobs.list(status=status, kind=kind, cursor=cursor))
    shown = list(found) if as_json else list(map(_short, found))
    show_table(shown, _COLUMNS, as_json=as_json)


@jobs.command("show")
@click.argument("job_id")
@click.pass_obj
def show_(client: Coxswain, *, job_id: str) -> None:
    """One job, with its request and its result."""
    show(client.jobs.retrieve(job_id))


@jobs.command()
@click.argument("job_id")
@click.pass_obj
def watch(client: Coxswain, *, job_id: str) -> None:
    """Follow JOB_ID to its end and print what it made."""
    watch_job(client, job_id)


@jobs.command()
@click.argument("job_id")
@click.pass_obj
def cancel(client: Coxswain, *, job_id: str) -> None:
    """End JOB_ID."""
    show(client.jobs.cancel(job_id))


@jobs.command()
@click.argument("job_id")
@click.option("--watch", "is_watched", is_flag=True, help="Follow it to its end.")
@click.pass_obj
def resume(client: Coxswain, *, job_id: str, is_watched: bool) -> None:
    """Go on with JOB_ID, which was interrupted, cancelled or failed."""
    _show_or_watch(client, client.jobs.resume(job_id), is_watched=is_watched)


@jobs.command()
@click.argument("job_id")
@click.option("--watch", "is_watched", is_flag=True, help="Follow it to its end.")
@click.pass_obj
def rerun(client: Coxswain, *, job_id: str, is_watched: bool) -> None:
    """Do once more, as a new job, what JOB_ID was asked to do."""
    _show_or_watch(client, client.jobs.rerun(job_id), is_watched=is_watched)


def _show_or_watch(client: Coxswain, job: Job, *, is_watched: bool) -> None:
    if is_watched:
        watch_job(client, job.id, after=job.num_events - 1)
    else:
        show(job)


def _short(job: Job) -> Job:
    """With a message that fits into a table."""
    message = textwrap.shorten(job.message, _MESSAGE_CHARS, placeholder="...")
    return job.model_copy(update={"message": message, "progress": round(job.progress, 2)})
