"""How results are printed: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import typer

from coxswain_client.models.record import Page, Record

_T = TypeVar("_T")


def show(document: Record | dict[str, Any]) -> None:
    """Print one object as JSON."""
    plain = document.model_dump(mode="json") if isinstance(document, Record) else document
    typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def show_table(records: Sequence[Record], columns: Sequence[str], *, as_json: bool) -> None:
    """Print objects as rows of `columns`, or whole as a JSON list."""
    documents = [record.model_dump(mode="json") for record in records]
    if as_json:
        typer.echo(json.dumps(documents, indent=2, ensure_ascii=False))
        return
    rows = [[column.upper() for column in columns]]
    rows += [[_cell(document.get(column)) for column in columns] for document in documents]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return str(value)


def all_pages(get: Callable[[str | None], Page[_T]]) -> Iterator[_T]:
    """Every item of a listing, page by page; `get` fetches the page at a cursor."""
    cursor: str | None = None
    while True:
        page = get(cursor)
        yield from page.data
        cursor = page.next_cursor
        if cursor is None:
            return
