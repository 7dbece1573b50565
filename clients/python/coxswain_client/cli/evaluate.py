"""`coxctl eval`."""

from __future__ import annotations

import asyncio
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from coxswain_client.client import AsyncCoxswain

from .options import argument, failure, group, option

_NEEDED = ("coxswain_evals", "matplotlib", "scipy", "yaml")

evaluate = group("Measure steering beside its controls.")

_FOLDER: Final = {"exists": True, "file_okay": False}


@evaluate.callback()
def check_installed() -> None:
    """Measure steering beside its controls."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise failure(f"evaluations need {', '.join(missing)}: install the extra coxswain[evals]")


@evaluate.command()
def run(
    ctx: typer.Context,
    suite: Annotated[Path, argument("SUITE", exists=True, dir_okay=False)],
    out: Annotated[Path | None, option(file_okay=False, help="Folder of the run.")] = None,
    limit: Annotated[int | None, option(min=1, help="Most items of each dataset.")] = None,
    resume: Annotated[
        bool, option("--resume", help="Go on in a folder; finished cells are kept.")
    ] = False,
    report: Annotated[bool, option("--report/--no-report", help="Write the report.")] = True,
) -> None:
    """Ask everything SUITE states, and keep every answer.

    Without --out, the run goes to a folder with the suite's name.
    """
    from coxswain_evals import load_suite, run_suite

    loaded = load_suite(suite, limit=limit)
    folder = out or Path(suite.stem)

    async def ask() -> None:
        async with _async_client(ctx) as client:
            await run_suite(client, loaded, folder, resume=resume, on_progress=_print_progress)

    asyncio.run(ask())
    if report:
        _write_report(folder)


@evaluate.command("report")
def report_(folder: Annotated[Path, argument("FOLDER", **_FOLDER)]) -> None:
    """Make the numbers, tables and plots of the run in FOLDER again; asks nothing."""
    _write_report(folder)


@evaluate.command()
def compare(
    first: Annotated[Path, argument("FIRST", **_FOLDER)],
    second: Annotated[Path, argument("SECOND", **_FOLDER)],
) -> None:
    """Print what two runs have in common and how it differs, paired by item."""
    from coxswain_evals import Results, render_comparison

    typer.echo(render_comparison(Results.read(first), Results.read(second)))


@evaluate.command()
def calibrate(
    file: Annotated[Path, argument("FILE")],
    package: Annotated[
        str | None, option(help="Installed package that has FILE, a path within it.")
    ] = None,
    suite: Annotated[
        Path | None, option(exists=True, dir_okay=False, help="Has the judge, if not the default.")
    ] = None,
    judge: Annotated[str, option(help="Its name in the suite.")] = "refusal",
    label: Annotated[str, option(help="Its label that people were asked about.")] = "refusal",
    seed: Annotated[int, option(help="Of the interval of kappa.")] = 0,
    as_json: Annotated[bool, option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure how far a judge agrees with people who labelled the answers in FILE.

    FILE is CSV, JSON or JSONL with an answer, what was asked, and labels: a column label, or
    columns that begin with human, one for each person.
    """
    from coxswain_evals import (
        DEFAULT_JUDGES,
        EvaluationError,
        installed_file,
        load_suite,
        read_labelled,
    )
    from coxswain_evals import calibrate as measure

    specs = {**DEFAULT_JUDGES, **({} if suite is None else load_suite(suite).suite.judges)}
    if judge not in specs:
        raise EvaluationError(f"{judge!r} is no judge; there are {', '.join(sorted(specs))}")
    path = file if package is None else installed_file(package, str(file))
    answers = read_labelled(path, label)

    async def measured() -> dict[str, Any]:
        made = specs[judge].make(None)
        try:
            return (await measure(made, label, answers, seed=seed)).document()
        finally:
            await made.close()

    found = asyncio.run(measured())
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name in ("accuracy", "kappa", "sensitivity", "specificity"):
        typer.echo(f"{name:<12} {_estimate(found[name])}")
    counts = ", ".join(f"{name} {count}" for name, count in found["counts"].items())
    typer.echo(f"{label!r} is said by: {counts}")
    typer.echo(f"unparsable {found['unparsable']}, undecided by people {found['undecided']}")


def _estimate(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return f"not defined n={found['n']}"
    ends = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found['value']:.3f}{ends} n={found['n']}"


def _write_report(folder: Path) -> None:
    from coxswain_evals import Results, write_report

    for path in write_report(Results.read(folder), folder):
        typer.echo(path)


def _async_client(ctx: typer.Context) -> AsyncCoxswain:
    """A client for asyncio of the server that `coxctl` was told of."""
    told = ctx.find_root().params
    return AsyncCoxswain(told["base_url"], api_key=told["api_key"])


def _print_progress(line: str) -> None:
    typer.echo(line, err=True)
