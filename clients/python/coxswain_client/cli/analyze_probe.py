"""`coxctl analyze probe`: train the probe of the refusal cliff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coxswain_client.client import Coxswain
from coxswain_client.example_files import read_examples

from .output import show
from .watching import watch_job

__all__ = ["probe"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name")
@click.option("--positive", type=_FILE, required=True, help="Rollouts that refuse.")
@click.option("--negative", type=_FILE, required=True, help="Rollouts that comply.")
@click.option("--layer", type=int, help="By default the last.")
@click.option("--site", help="By default final, after the last norm.")
@click.option("--validation", type=float, help="Share held out; by default 0.2.")
@click.option("--l2", type=float, help="Weight of the penalty; by default 1.")
@click.option("--seed", type=int, help="Of the split.")
@click.option("--watch", is_flag=True, help="Follow it to its end.")
@click.pass_obj
def probe(
    client: Coxswain,
    /,
    *,
    name: str,
    positive: Path,
    negative: Path,
    validation: float | None,
    watch: bool,
    **options: Any,
) -> None:
    """Train a probe called NAME where thoughts have ended and answers would begin.

    A line of a file is a chat whose last message is `<think> thought </think> answer`. Let both
    files hold the same topics: against ordinary questions alone it learns the topic.
    """
    data: dict[str, Any] = {
        "positive": read_examples(positive),
        "negative": read_examples(negative),
    }
    if validation is not None:
        data["validation"] = validation
    given = {key: value for key, value in options.items() if value is not None}
    job = client.jobs.create("cliff_probe", name=name, data=data, **given)
    if watch:
        click.echo(job.id, err=True)
        watch_job(client, job.id)
    else:
        show(job)
