"""`coxswain store`: what is kept, checked and tidied."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from .options import DataDir, open_store, read_settings

__all__ = ["app", "check_store", "collect_store"]

app = typer.Typer(help="Check and tidy what is stored.", no_args_is_help=True)


@app.command("check")
def check_store(data_dir: DataDir = None) -> None:
    """Read every artifact and the audit log again; status 1 if anything is damaged."""
    from . import store_report

    with open_store(read_settings(data_dir=data_dir)) as store:
        found, fault = store.artifacts.check(), store.audit_fault()
    for line in store_report.checked(found, fault):
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
    from . import store_report

    settings = read_settings(data_dir=data_dir)
    days = settings.job_retention_days
    with open_store(settings) as store:
        found = store.artifacts.collect(timedelta(hours=grace_hours), dry_run=dry_run)
        for line in store_report.collected(found, dry_run=dry_run):
            typer.echo(line)
        if days is not None:
            jobs = store.jobs.prune(timedelta(days=days), dry_run=dry_run)
            typer.echo(store_report.pruned(jobs, days, dry_run=dry_run))
