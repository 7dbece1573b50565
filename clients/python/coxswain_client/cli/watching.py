"""Following a job to its end, on standard error."""

from __future__ import annotations

import json
from time import monotonic, sleep
from typing import Final

import typer

from coxswain_client.client import Coxswain
from coxswain_client.errors import SteeringClientError
from coxswain_client.models.jobs import Job, JobEvent

from .options import failure
from .output import show

__all__ = ["finished_job", "show_or_watch_new", "watch_job"]

_PATIENCE_SECONDS: Final = 600.0  # a large model is loaded in minutes
_PAUSE_SECONDS: Final = 2.0


def show_or_watch_new(client: Coxswain, job: Job, *, is_watched: bool) -> None:
    """Print a job that was just queued; or its id on standard error, then as `watch_job`."""
    if is_watched:
        typer.echo(job.id, err=True)
        watch_job(client, job.id)
    else:
        show(job)


def watch_job(client: Coxswain, job_id: str, *, after: int = 0) -> None:
    """Print a job's progress on standard error, then the direction it made, or its result.

    Raises:
        Exit: It did not succeed, which is said on standard error.
    """
    result = finished_job(client, job_id, after=after).result or {}
    typer.echo(result.get("direction") or json.dumps(result, indent=2, ensure_ascii=False))


def finished_job(client: Coxswain, job_id: str, *, after: int = 0) -> Job:
    """A job that has succeeded; its progress is printed on standard error meanwhile.

    A server that goes away is waited for.

    Raises:
        Exit: It did not succeed, which is said on standard error.
    """
    watcher = _Watcher()
    try:
        job = client.jobs.wait(job_id, watcher.take, after=after, on_away=watcher.wait_for_server)
    except SteeringClientError:
        if watcher.end is None:
            raise
        raise _failure(job_id, watcher.end.status, watcher.end.message) from None
    watcher.say_back()
    if not job.has_succeeded:
        raise _failure(job.id, job.status, (job.error or {}).get("message") or job.message)
    return job


class _Watcher:
    """What has been printed of a job that is watched.

    Attributes:
        end: The event with which the job failed, which is printed once, by the error; None before
            that, and when the job goes on.
    """

    def __init__(self) -> None:
        self.end: JobEvent | None = None
        self._away_since: float | None = None

    def take(self, event: JobEvent) -> None:
        """Print an event, and the end of an earlier attempt that it goes on from."""
        self.say_back()
        if self.end is not None:
            _print(self.end)
        self.end = event if event.is_failure else None
        if self.end is None:
            _print(event)

    def wait_for_server(self, error: SteeringClientError) -> bool:
        """Whether to ask again, after a pause; not where the end is known already."""
        now = monotonic()
        if self.end is not None:
            return False
        if self._away_since is None:
            self._away_since = now
            typer.echo(f"the server went away ({error}); waiting for it", err=True)
        if now - self._away_since > _PATIENCE_SECONDS:
            return False
        sleep(_PAUSE_SECONDS)
        return True

    def say_back(self) -> None:
        """Say that the server is back, where it was away."""
        if self._away_since is not None:
            self._away_since = None
            typer.echo("the server is back", err=True)


def _failure(job_id: str, status: str, message: str) -> typer.Exit:
    remedy = f": coxctl jobs resume {job_id}" if status == "interrupted" else ""
    return failure(f"{job_id} {status}: {message}{remedy}")


def _print(event: JobEvent) -> None:
    typer.echo(f"{event.progress:4.0%} {event.message}", err=True)
