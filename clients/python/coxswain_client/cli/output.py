"""How results are printed: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from coxswain_client.models.record import Record

__all__ = ["show", "show_table"]


def show(document: Record | dict[str, Any]) -> None:
    """Print one object as JSON."""
    plain = document.model_dump(mode="json") if isinstance(document, Record) else document
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def show_table(records: Sequence[Record], columns: Sequence[str], *, as_json: bool) -> None:
    """Print objects as rows of `columns`, or whole as a JSON list."""
    documents = [record.model_dump(mode="json") for record in records]
    if as_json:
        click.echo(json.dumps(documents, indent=2, ensure_ascii=False))
        return
    rows = [[column.upper() for column in columns]]
    rows += [[_cell(document.get(column)) for column in columns] for document in documents]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return str(value)
