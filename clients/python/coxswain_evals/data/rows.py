"""Rows of CSV, JSON and JSONL files, each with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coxswain_evals.errors import SuiteError

SUFFIXES: Final = (".jsonl", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class Row:
    """An object of a file.

    Attributes:
        line: The line it ends on; in a JSON list its place, from 1.
        cells: Its members, by name in lower case; empty ones are left out.
    """

    line: int
    cells: dict[str, Any]

    def text(self, name: str) -> str:
        """A member as text; "" where there is none."""
        return str(self.cells.get(name, "")).strip()


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        SuiteError: It cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError([f"{path}: cannot be read: {error}"]) from None


def read_rows(path: Path) -> list[Row]:
    """The rows of a file: CSV with a header, a JSON list of objects, or an object a line.

    Lines before a CSV's header that begin with `#` are left out.

    A `.json` file may hold an object a line too, as that of CATQA does.

    Raises:
        SuiteError: It cannot be read, or is of another kind; with every line that is wrong.
    """
    text, suffix = read_text(path), path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SuiteError([f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}"])
    problems: list[str] = []
    if suffix == ".csv":
        rows = list(_csv_rows(path, text, problems))
    elif suffix == ".json" and text.lstrip().startswith("["):
        rows = list(_list_rows(path, text, problems))
    else:
        rows = list(_line_rows(path, text, problems))
    if not rows and not problems:
        problems.append(f"{path}: no rows")
    if problems:
        raise SuiteError(problems)
    return rows


def _csv_rows(path: Path, text: str, problems: list[str]) -> Iterator[Row]:
    lines = list(io.StringIO(text, newline=""))
    # Files of PyRIT begin with comments.
    skipped = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    reader = csv.DictReader(lines[skipped:], strict=True)
    try:
        for cells in reader:
            line = skipped + reader.line_num
            if None in cells or None in cells.values():
                problems.append(f"{path}:{line}: not as many cells as the header has")
                continue
            yield _row(line, cells)
    except csv.Error as error:
        problems.append(f"{path}:{skipped + reader.line_num}: {error}")


def _list_rows(path: Path, text: str, problems: list[str]) -> Iterator[Row]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        problems.append(f"{path}:{error.lineno}: not JSON: {error.msg}")
        return
    for number, item in enumerate(found, 1):
        if isinstance(item, dict):
            yield _row(number, item)
        else:
            problems.append(f"{path}: item {number} is no object")


def _line_rows(path: Path, text: str, problems: list[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{path}:{number}: not JSON: {error.msg}")
            continue
        if isinstance(item, dict):
            yield _row(number, item)
        else:
            problems.append(f"{path}:{number}: expected an object")


def _row(line: int, cells: dict[str, Any]) -> Row:
    named = {name.strip().lower(): value for name, value in cells.items()}
    return Row(line, {name: value for name, value in named.items() if value not in (None, "")})
