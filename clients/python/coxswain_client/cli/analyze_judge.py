"""`coxctl analyze judge`: the rollouts that teach most."""

from __future__ import annotations

import json
from pathlib import Path

import click

from coxswain_client.client import Coxswain
from coxswain_client.example_files import ExampleFileError, read_examples

from .out_file import OutFile
from .watching import finished_job

__all__ = ["judge"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--probe", required=True, help="NAME or NAME@VERSION.")
@click.option("--fraction", type=click.FloatRange(0, 1, min_open=True), required=True)
@click.option(
    "--rule",
    type=click.Choice(["cliff", "final"]),
    default="cliff",
    show_default=True,
    help="Largest plateau - final first, or smallest final first, as published.",
)
@click.option("--out", type=OutFile(), required=True)
@click.pass_obj
def judge(
    client: Coxswain, /, *, file: Path, probe: str, fraction: float, rule: str, out: Path
) -> None:
    """Rank the rollouts in FILE (.jsonl, chats with thoughts) and write the first to --out.

    Lines are copied as they are, the one to train on first. The server does it as a job.
    """
    if file.suffix.lower() != ".jsonl":
        raise ExampleFileError(f"{file}: unknown kind of file; expected .jsonl")
    lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    job = client.jobs.create("cliff", conversations=read_examples(file), probe=probe)
    result = finished_job(client, job.id).result or {}
    count = min(len(lines), max(1, round(fraction * len(lines))))
    chosen = result["ranking"][rule][:count]
    out.write_text("".join(f"{lines[index]}\n" for index in chosen), encoding="utf-8")
    rows = [result["conversations"][index] for index in chosen]
    summary = {
        "job": job.id,
        "selected": count,
        "of": len(lines),
        "rule": rule,
        "mean_cliff_selected": sum(row["cliff"] for row in rows) / count,
        "mean_cliff": result["average"]["cliff"],
    }
    click.echo(json.dumps(summary, indent=2))
