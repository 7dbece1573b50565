"""`coxswain models`: what can be served here, and what it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from server.settings import Settings

from .options import read_settings

if TYPE_CHECKING:
    from server.engine.loading.sizing import ModelSize

_SHORT: Final = 1024
_COLUMNS: Final = (
    *("model", "parameters", "dtype", "weights", "packed", "free", "context"),
    *("cache", f"x {_SHORT:,} tokens", "x context"),
)


def models(
    model: Annotated[
        list[str] | None,
        typer.Argument(help="Names, folders, .gguf files or hub ids; none: all that is here."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:<i>.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Prompt plus answer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """Say what models would take here, before any is loaded; status 1 if one cannot be served.

    A model of the hub that is not in the cache is sized by its configuration alone.
    """
    from server.logs import configure_logs
    from server.models import ORGANISM, SMOLLM2, cached_ids

    configure_logs("warning", "text")
    settings = read_settings(device=device, dtype=dtype, max_model_len=max_model_len)
    named = model or [ORGANISM, SMOLLM2, *cached_ids()]
    found = {name: _size(name, settings) for name in dict.fromkeys(named)}
    faults = {name: size if isinstance(size, str) else size.fault for name, size in found.items()}
    if as_json:
        for name, size in found.items():
            sized = {"fault": size} if isinstance(size, str) else asdict(size)
            typer.echo(json.dumps({"model": name, **sized}))
    else:
        rows = [_row(name, size, settings) for name, size in found.items()]
        for line in _table([_COLUMNS, *rows]):
            typer.echo(line)
        for name, fault in faults.items():
            if fault is not None:
                typer.echo(f"{name}: {' '.join(fault.split())}", err=True)
    if model and any(faults.values()):
        raise typer.Exit(1)


def _size(name: str, settings: Settings) -> ModelSize | str:
    """What a model takes, or why it cannot be served."""
    from server.engine.loading.sizing import size_model
    from server.models import find_model
    from steering.errors import CoxswainError

    try:
        source = find_model(name, weights=False)
        with TemporaryDirectory() as scratch:
            folder = source.config_folder(Path(scratch))
            return size_model(settings.engine_config(folder, source.served_name))
    except CoxswainError as error:
        return str(error)


def _row(name: str, size: ModelSize | str, settings: Settings) -> tuple[str, ...]:
    if isinstance(size, str):
        return (name, *["-"] * (len(_COLUMNS) - 1))
    taken = (
        f"{size.num_parameters / 1e6:,.1f} M",
        size.dtype,
        _megabytes(size.weight_bytes),
        _megabytes(size.packed_bytes),
        f"{_megabytes(size.free_bytes)} {size.device}",
    )
    if size.cache is None:
        return (name, *taken, "does not fit", "-", "-", "-")
    context = size.cache.max_model_len
    num_tokens = size.cache.num_blocks * settings.block_size
    requests = [num_tokens // min(length, context) for length in (_SHORT, context)]
    return (
        name,
        *taken,
        f"{context:,}",
        f"{_megabytes(size.cache.num_bytes)}, {num_tokens:,} tokens",
        *(f"{min(count, settings.max_num_seqs):,} requests" for count in requests),
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _table(rows: Sequence[Any]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
