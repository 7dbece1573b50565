"""`coxctl eval`."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from coxswain_client.client import AsyncCoxswain

__all__ = ["evaluate"]

_NEEDED = ("coxswain_evals", "matplotlib", "scipy", "yaml")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group("eval")
def evaluate() -> None:
    """Measure steering beside its controls."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"evaluations need {', '.join(missing)}: install the extra coxswain[evals]"
        )


@evaluate.command()
@click.argument("suite", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--limit", type=click.IntRange(min=1), help="Most items of each dataset.")
@click.option("--resume", is_flag=True, help="Go on in a folder; finished cells are kept.")
@click.option("--report/--no-report", default=True, show_default=True, help="Write the report.")
@click.pass_context
def run(
    ctx: click.Context, /, *, suite: Path, out: Path | None, limit: int | None, **flags: bool
) -> None:
    """Ask everything SUITE states, and keep every answer.

    Without --out, the run goes to a folder with the suite's name.
    """
    from coxswain_evals import load_suite, run_suite

    loaded = load_suite(suite, limit=limit)
    folder = out or Path(suite.stem)

    async def go() -> None:
        async with _client(ctx) as client:
            await run_suite(client, loaded, folder, resume=flags["resume"], say=_say)

    asyncio.run(go())
    if flags["report"]:
        _report(folder)


@evaluate.command()
@click.argument("folder", type=_FOLDER)
def report(folder: Path) -> None:
    """Make the numbers, tables and plots of the run in FOLDER again; asks nothing."""
    _report(folder)


@evaluate.command()
@click.argument("first", type=_FOLDER)
@click.argument("second", type=_FOLDER)
def compare(first: Path, second: Path) -> None:
    """Print what two runs have in common and how it differs, paired by item."""
    from coxswain_evals import Results, render_comparison

    click.echo(render_comparison(Results.read(first), Results.read(second)))


def _report(folder: Path) -> None:
    from coxswain_evals import Results, write_report

    for path in write_report(Results.read(folder), folder):
        click.echo(path)


def _client(ctx: click.Context) -> AsyncCoxswain:
    """Of the server `coxctl` was told of."""
    told: dict[str, Any] = ctx.find_root().params
    return AsyncCoxswain(told["base_url"], api_key=told["api_key"])


def _say(line: str) -> None:
    click.echo(line, err=True)
