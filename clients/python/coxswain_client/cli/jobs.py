"""`coxctl jobs` and `coxctl fit`, and following a job to its end."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any, Final

import typer

from coxswain_client.client import Coxswain
from coxswain_client.errors import SteeringClientError
from coxswain_client.example_files import read_examples, read_pairs
from coxswain_client.models.jobs import Job, JobEvent

from .options import (
    AsJson,
    TemplateKwargs,
    argument,
    client_of,
    failure,
    group,
    in_file,
    option,
    without_blanks,
)
from .output import all_pages, show, show_table

_MESSAGE_CHARS = 60
_COLUMNS = ("id", "kind", "name", "status", "progress", "message")

jobs = group("Work of the server on its own model.")

_JobId = Annotated[str, argument("JOB_ID")]
_Watch = Annotated[bool, option("--watch", help="Follow it to its end.")]
_PATIENCE_SECONDS: Final = 600.0  # a large model is loaded in minutes
_PAUSE_SECONDS: Final = 2.0


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
    _watch_job(client_of(ctx), job_id)


@jobs.command()
def cancel(ctx: typer.Context, job_id: _JobId) -> None:
    """End JOB_ID."""
    show(client_of(ctx).jobs.cancel(job_id))


@jobs.command()
def resume(ctx: typer.Context, job_id: _JobId, watch: _Watch = False) -> None:
    """Go on with JOB_ID, which was interrupted, cancelled or failed."""
    client = client_of(ctx)
    show_or_watch(client, client.jobs.resume(job_id), is_watched=watch)


@jobs.command()
def rerun(ctx: typer.Context, job_id: _JobId, watch: _Watch = False) -> None:
    """Do once more, as a new job, what JOB_ID was asked to do."""
    client = client_of(ctx)
    show_or_watch(client, client.jobs.rerun(job_id), is_watched=watch)


def _shortened(job: Job) -> Job:
    """The job with a message and a progress that fit into a table."""
    message = textwrap.shorten(job.message, _MESSAGE_CHARS, placeholder="...")
    return job.model_copy(update={"message": message, "progress": round(job.progress, 2)})


def fit(
    ctx: typer.Context,
    name: Annotated[str, argument("NAME")],
    method: Annotated[str, option(help="See capabilities.")] = "mean_difference",
    positive: Annotated[
        Path | None, in_file(help="Examples with the property: .jsonl or .csv.")
    ] = None,
    negative: Annotated[Path | None, in_file(help="Examples without it.")] = None,
    pairs: Annotated[Path | None, in_file(help="Both, in pairs, instead.")] = None,
    system_prompt: Annotated[
        str | None, option(help="Put before every example, and absent when serving.")
    ] = None,
    chat_template_kwargs: TemplateKwargs = None,
    token: Annotated[str | None, option(help="last, post_instruction, mean, or an index.")] = None,
    validation: Annotated[float | None, option(help="Share held out; by default 0.2.")] = None,
    site: Annotated[str | None, option(help="By default resid_post.")] = None,
    layers: Annotated[
        str | None,
        option(help="Layers such as 3,4 or 40-60%, all, select, or select:2,3,4."),
    ] = None,
    options: Annotated[
        list[str] | None, option("--option", metavar="KEY=VALUE", help="Repeatable.")
    ] = None,
    seed: Annotated[int | None, option(help="Of the split and of resampling.")] = None,
    requires: Annotated[
        list[str] | None, option(help="Scope that its use takes; repeatable.")
    ] = None,
    watch: Annotated[
        bool, option("--watch", help="Follow it to its end; prints the direction.")
    ] = False,
) -> None:
    """Fit a direction called NAME from example prompts, on the server's own model.

    A line of a .jsonl file is a text, or an object with prompt or messages; a .csv file has a
    column prompt (or text), or conversation, role and content. The result with its receipt is in
    `coxctl jobs show`.
    """
    data = without_blanks(
        **_examples(positive, negative, pairs),
        token=int(token) if token and token.lstrip("-").isdecimal() else token,
        system_prompt=system_prompt,
        chat_template_kwargs=chat_template_kwargs,
        validation=validation,
    )
    request = without_blanks(
        name=name,
        method=method,
        site=site,
        layers=_layers(layers),
        data=data,
        options=dict(map(_option, options or ())),
        seed=seed,
        requires=requires,
    )
    client = client_of(ctx)
    job = client.jobs.create("fit", **request)
    show_or_watch(client, job, is_watched=watch, is_new=True)


def _examples(positive: Path | None, negative: Path | None, pairs: Path | None) -> dict[str, Any]:
    """The examples in the files, as a fit's `data` takes them."""
    if pairs is not None and positive is None and negative is None:
        return {"pairs": read_pairs(pairs)}
    if pairs is None and positive is not None and negative is not None:
        return {"positive": read_examples(positive), "negative": read_examples(negative)}
    raise typer.BadParameter("give --positive and --negative, or --pairs")


def _layers(text: str | None) -> str | list[int] | dict[str, Any] | None:
    """A choice of layers as the server reads it; None where it is not given."""
    if text is None or text == "select":
        return text
    if text.startswith("select:"):
        return {"select": _layers(text.removeprefix("select:"))}
    first, dash, last = text.removesuffix("%").partition("-")
    try:
        if text == "all":
            return {"from": 0, "to": 1}
        if dash and text.endswith("%"):
            return {"from": float(first) / 100, "to": float(last) / 100}
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}; expected layers such as 3,4, a range of the depth such as 40-60%, all, "
            "select, or select: before any of these",
            param_hint="--layers",
        ) from None


def _option(text: str) -> tuple[str, Any]:
    """`key=value`; a value that is JSON is read as JSON, any other is a text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{text!r}; expected KEY=VALUE", param_hint="--option")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def show_or_watch(client: Coxswain, job: Job, *, is_watched: bool, is_new: bool = False) -> None:
    """Print a job that was queued, or follow it to its end as `coxctl jobs watch` does.

    Of a new job the id is printed first, on standard error, and every event; of one that is queued
    again the events that come from now on.

    Raises:
        Exit: It was followed and did not succeed, which is said on standard error.
    """
    if not is_watched:
        show(job)
        return
    if is_new:
        typer.echo(job.id, err=True)
    _watch_job(client, job.id, after=0 if is_new else job.num_events - 1)


def _watch_job(client: Coxswain, job_id: str, *, after: int = 0) -> None:
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
    watcher.report_return()
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
        self.report_return()
        if self.end is not None:
            _print_event(self.end)
        self.end = event if event.is_failure else None
        if self.end is None:
            _print_event(event)

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

    def report_return(self) -> None:
        """Say that the server is back, where it was away."""
        if self._away_since is not None:
            self._away_since = None
            typer.echo("the server is back", err=True)


def _failure(job_id: str, status: str, message: str) -> typer.Exit:
    remedy = f": coxctl jobs resume {job_id}" if status == "interrupted" else ""
    return failure(f"{job_id} {status}: {message}{remedy}")


def _print_event(event: JobEvent) -> None:
    typer.echo(f"{event.progress:4.0%} {event.message}", err=True)
