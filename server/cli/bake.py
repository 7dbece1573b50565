"""`coxswain bake`: steering written into a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .options import DataDir, failure, open_store, read_settings


def bake(
    model: Annotated[
        str, typer.Option(help="A name, folder, .gguf file or hub id, as for serve; only read.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    profile: Annotated[str | None, typer.Option(help="A stored profile or alias.")] = None,
    direction: Annotated[Path | None, typer.Option(help="A direction's safetensors file.")] = None,
    operation: Annotated[
        str | None,
        typer.Option(help="With it: rank_one, rank_one_calibrated, amplify or ablate."),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Strength.")] = None,
    relative: Annotated[
        float | None, typer.Option(help="Instead: relative change of every weight, like 0.01.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Like 0,3-5. Default: all.")] = None,
    embeddings: Annotated[bool, typer.Option(help="The token embedding too.")] = False,
    untie: Annotated[bool, typer.Option(help="Part it from a tied unembedding.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A prompt a line, to measure outputs on.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Report, and write nothing.")] = False,
    force: Annotated[bool, typer.Option(help="Replace a checkpoint at --out.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write steering into a copy of a checkpoint's weights, to be loaded without Coxswain."""
    from server.bake import options as given
    from server.bake.run import bake as run
    from server.logs import configure_logs
    from server.models import find_model

    configure_logs("warning", "text")

    if (out is None) != dry_run:
        raise failure("give either --out, or --dry-run for a report alone")
    settings = read_settings(data_dir=data_dir)
    options = given.BakeOptions(
        model=find_model(model).folder(settings.models_dir),
        out=out,
        profile=profile,
        direction=direction,
        operation=None if operation is None else given.parse_operation(operation),
        alpha=alpha,
        relative=relative,
        layers=None if layers is None else given.parse_layers(layers),
        embeddings=embeddings,
        untie=untie,
        dtype=dtype,
        prompts=prompts,
        force=force,
    )
    with nullcontext() if profile is None else open_store(settings) as store:
        report = run(options, store)
    typer.echo(report.table())
    for note in (*report.notes, *(f"warning: {text}" for text in report.warnings)):
        typer.echo(note, err=True)
