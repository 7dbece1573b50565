"""The folder of a run: its plan, its cells, its record."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .arm import Arm
from .data import Item
from .errors import RunFolderError

_PLAN: Final = "plan.json"
_RECORD: Final = "run.json"
_CELLS: Final = "cells"
Row = dict[str, Any]
"""What came of one item; `item` holds its id."""


class RunFolder:
    """The files of one run; after a crash each of them is there whole or not at all.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def cells(self) -> CellStore:
        """The finished cells of the run."""
        return CellStore(self.path / _CELLS)

    def begin(self, *, resume: bool) -> None:
        """Check that a run may begin, or go on, here.

        Raises:
            RunFolderError: The folder holds something, and this is no resumption.
        """
        if self.path.exists() and any(self.path.iterdir()) and not resume:
            raise RunFolderError(f"{self.path} is not empty; give another folder, or --resume")
        self.path.mkdir(parents=True, exist_ok=True)

    def plan(self, digest: str) -> tuple[list[Arm], dict[str, str]] | None:
        """The arms planned before, and SHA-256 of the directions they use.

        None where there are none, or where other things were decided.
        """
        path = self.path / _PLAN
        if not path.exists():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["digest"] != digest:
            return None
        return [Arm.of(arm) for arm in kept["arms"]], kept["directions"]

    def keep_plan(self, digest: str, arms: Sequence[Arm], directions: Mapping[str, str]) -> None:
        """Remember the arms, a digest of all that decides them, and their directions' hashes."""
        document = {
            "digest": digest,
            "arms": [arm.document() for arm in arms],
            "directions": dict(directions),
        }
        write_whole(self.path / _PLAN, json.dumps(document) + "\n")

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record of a finished run: what was asked of which server."""
        text = json.dumps(record, indent=1, ensure_ascii=False)
        write_whole(self.path / _RECORD, text + "\n")

    def record(self) -> dict[str, Any]:
        """The record of the finished run.

        Raises:
            RunFolderError: The run has not finished.
        """
        path = self.path / _RECORD
        if not path.exists():
            raise RunFolderError(f"{self.path} holds no finished run: there is no {_RECORD}")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True)
class Cell:
    """Something to ask of every item of a dataset.

    Attributes:
        task: `answers`, `scores`, `kl`, or `verdicts of <judge>`.
        arm: The steering under which it is asked.
        dataset: Name of the dataset.
        items: The items of the dataset.
        settings: Everything else that decides the result: model fingerprint, sampling, judge.
    """

    task: str
    arm: Arm
    dataset: str
    items: Sequence[Item]
    settings: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the result, as 16 hexadecimal digits."""
        asked = {
            "task": self.task,
            "steering": dict(self.arm.steering),
            "expected": [dict(entry) for entry in self.arm.expected],
            "items": [item.model_dump() for item in self.items],
            "settings": dict(self.settings),
        }
        text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """Name of the file of its rows: readable, and unique by the digest."""
        words = "--".join((self.task, self.dataset, self.arm.name))
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', words)}--{self.digest}.jsonl"


class CellStore:
    """Finished cells in a folder, one file each, written at once or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, cell: Cell) -> list[Row] | None:
        """The rows of a finished cell, or None."""
        path = self._folder / cell.file_name
        return self.read(cell.file_name) if path.exists() else None

    def read(self, file_name: str) -> list[Row]:
        """The rows in the file of a finished cell."""
        text = (self._folder / file_name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def save(self, cell: Cell, rows: Iterable[Row]) -> None:
        """Write the rows of a finished cell."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_whole(self._folder / cell.file_name, lines)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
