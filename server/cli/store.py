"""`coxswain store`: what is kept, checked and tidied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir, open_store, read_settings

if TYPE_CHECKING:
    from server.store import ArtifactCheck, Blob, Collected, PrunedJobs

app = typer.Typer(help="Check and tidy what is stored.", no_args_is_help=True)


@app.command("check")
def check_store(data_dir: DataDir = None) -> None:
    """Read every artifact and the audit log again; status 1 if anything is damaged."""
    with open_store(read_settings(data_dir=data_dir)) as store:
        found, fault = store.artifacts.check(), store.audit_fault()
    for line in _checked(found, fault):
        typer.echo(line)
    if fault is not None or not found.is_sound:
        raise typer.Exit(1)


@app.command("collect")
def collect_store(
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Age below which an orphan may be an upload in progress.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option(help="Say what would be removed.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Remove artifacts that nothing names, what interrupted uploads left, and old ended jobs."""
    settings = read_settings(data_dir=data_dir)
    days = settings.job_retention_days
    with open_store(settings) as store:
        found = store.artifacts.collect(timedelta(hours=grace_hours), dry_run=dry_run)
        for line in _collected(found, dry_run=dry_run):
            typer.echo(line)
        if days is not None:
            jobs = store.jobs.prune(timedelta(days=days), dry_run=dry_run)
            typer.echo(_pruned(jobs, days, dry_run=dry_run))


def _checked(found: ArtifactCheck, audit_fault: str | None) -> Iterator[str]:
    """The lines of `coxswain store check`."""
    for word, digests in (("damaged", found.damaged), ("missing", found.missing)):
        for digest, directions in digests.items():
            yield f"{word} {digest} of {', '.join(directions)}"
    for blob in found.orphans:
        yield _orphan("orphaned", blob)
    if audit_fault is not None:
        yield f"audit log: {audit_fault}"
    yield (
        f"{_count(found.num_blobs, 'artifact')} read: {len(found.damaged)} damaged, "
        f"{len(found.missing)} missing; beside them {_count(len(found.orphans), 'orphan')}, "
        f"{_count(found.num_temporary, 'temporary file')}"
    )


def _collected(found: Collected, *, dry_run: bool) -> Iterator[str]:
    """The lines of `coxswain store collect`."""
    verb = "would remove" if dry_run else "removed"
    for blob in found.orphans:
        yield _orphan(verb, blob)
    size_bytes = sum(blob.size_bytes for blob in found.orphans)
    yield (
        f"{verb} {_count(len(found.orphans), 'orphan')} of {size_bytes:,} bytes and "
        f"{_count(found.num_temporary, 'temporary file')}; left "
        f"{_count(found.num_spared, 'orphan')} too young to be removed"
    )


def _pruned(found: PrunedJobs, days: float, *, dry_run: bool) -> str:
    """The line of `coxswain store collect` about jobs that ended more than `days` ago."""
    verb = "would remove" if dry_run else "removed"
    return (
        f"{verb} {_count(len(found.removed), 'job')} ended more than {days:g} days ago; left "
        f"{_count(found.num_spared, 'job')} as old that a direction came from"
    )


def _orphan(word: str, blob: Blob) -> str:
    return f"{word} {blob.digest}, {blob.size_bytes:,} bytes of {blob.stored_at:%Y-%m-%d %H:%M} UTC"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
