"""Following a job to its end, on standard error."""

from __future__ import annotations

import json
from time import monotonic, sleep
from typing import Final

import click

from coxswain_client.client import Coxswain
from coxswain_client.errors import SteeringClientError
from coxswain_client.models.jobs import Job, JobEvent

__all__ = ["finished_job", "watch_job"]

_PATIENCE_SECONDS: Final = 600.0  # a large model is loaded in minutes
_PAUSE_SECONDS: Final = 2.0


def watch_job(client: Coxswain, job_id: str, *, after: int = 0) -> None:
    """Print a job's progress on standard error, then the direction it made, or its result.

    Raises:
        ClickException: It did not succeed.
    """
    result = finished_job(client, job_id, after=after).result or {}
    click.echo(result.get("direction") or json.dumps(result, indent=2, ensure_ascii=False))


def finished_job(client: Coxswain, job_id: str, *, after: int = 0) -> Job:
    """A job that has succeeded; its progress is printed on standard error meanwhile.

    A server that goes away is waited for.

    Raises:
        ClickException: It did not succeed.
    """
    shown = _Shown()
    try:
        job = client.jobs.wait(job_id, shown.take, after=after, on_away=shown.wait_for_server)
    except SteeringClientError:
        if shown.end is None:
            raise
        raise _failure(job_id, shown.end.status, shown.end.message) from None
    shown.say_back()
    if not job.has_succeeded:
        raise _failure(job.id, job.status, (job.error or {}).get("message") or job.message)
    return job


class _Shown:
    """What a watcher has been shown.

    Attributes:
        end: The event that the job ended with badly, which is said once, by the error; None before
            it has, and when the job goes on.
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
            click.echo(f"the server went away ({error}); waiting for it", err=True)
        if now - self._away_since > _PATIENCE_SECONDS:
            return False
        sleep(_PAUSE_SECONDS)
        return True

    def say_back(self) -> None:
        """Say that the server is back, where it was away."""
        if self._away_since is not None:
            self._away_since = None
            click.echo("the server is back", err=True)


def _failure(job_id: str, status: str, message: str) -> click.ClickException:
    remedy = f": coxctl jobs resume {job_id}" if status == "interrupted" else ""
    return click.ClickException(f"{job_id} {status}: {message}{remedy}")


def _print(event: JobEvent) -> None:
    click.echo(f"{event.progress:4.0%} {event.message}", err=True)
