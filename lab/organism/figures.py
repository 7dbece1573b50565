"""The measured figures of one training run, and how they are kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One seed, trained and measured.

    Attributes:
        seed: Of the recipe.
        splits: Split to cell to metric to value.
        train: The checkpoint's `train.json`.
    """

    seed: int
    splits: dict[str, dict[str, dict[str, float]]]
    train: dict[str, object]

    def value(self, split: str, cell: str, metric: str) -> float:
        """The value of one metric of a cell on a split."""
        return self.splits[split][cell][metric]


def load_runs(path: Path) -> list[Run]:
    """Read runs, in the order written."""
    return [Run(**run) for run in json.loads(path.read_text(encoding="utf-8"))]


def save_runs(runs: list[Run], path: Path) -> None:
    """Write runs as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(run) for run in runs], indent=1)
    path.write_text(text + "\n", encoding="utf-8")
