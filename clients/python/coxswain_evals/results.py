"""The numbers of a run, made again from what was kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .arm import Arm, Role
from .counting import Counted, Rows, count, statistic_of
from .data import Item
from .run_folder import CellStore, RunFolder
from .statistics import Difference, Estimate, difference, estimate
from .suite import Measure, Suite

_VERDICTS = "verdicts of "


@dataclass(frozen=True)
class Measured:
    """One measure on one arm.

    Attributes:
        counted: Its value for each item.
        estimate: The statistic with its interval.
        difference: From the no-op, paired by item; None for the no-op itself.
    """

    counted: Counted
    estimate: Estimate
    difference: Difference | None


@dataclass(frozen=True)
class Results:
    """A finished run.

    Attributes:
        suite: The suite that was run.
        server: Model and fingerprint of the server.
        arms: Every arm; some are asked under another's name, some not at all.
        rows: What was kept, by arm and dataset, of the arms that were asked.
    """

    suite: Suite
    server: Mapping[str, Any]
    arms: Sequence[Arm]
    rows: Mapping[tuple[str, str], Rows]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """The results of the run in a folder.

        Raises:
            RunFolderError: It holds no finished run.
        """
        kept = RunFolder(folder)
        record = kept.record()
        items = {
            name: {entry["id"]: Item.model_validate(entry) for entry in entries}
            for name, entries in record["items"].items()
        }
        rows = {
            (arm, dataset): _rows(kept.cells, files, dataset, items[dataset])
            for arm, files in record["cells"].items()
            for dataset in {entry["dataset"] for entry in files}
        }
        arms = [Arm.of(document) for document in record["arms"]]
        return cls(Suite.model_validate(record["suite"]), record["server"], arms, rows)

    @cached_property
    def measured(self) -> dict[tuple[str, str], Measured]:
        """Every measure on every arm that was asked, by the names of both."""
        found = {}
        for measure in self.suite.measures:
            counts = {
                arm.name: count(measure, self.rows[arm.name, measure.dataset])
                for arm in self.arms
                if (arm.name, measure.dataset) in self.rows
            }
            for name, counted in counts.items():
                found[measure.name, name] = self._measured(measure, counted, counts, name)
        return found

    def get(self, measure: Measure, arm: Arm) -> Measured | None:
        """One measure on one arm, or on the arm it is the same as; None where nothing was asked."""
        return self.measured.get((measure.name, arm.same_as or arm.name))

    def document(self) -> dict[str, Any]:
        """All numbers, but no single answers, as a JSON document."""
        return {
            "suite": self.suite.name,
            "server": dict(self.server),
            "seed": self.suite.seed,
            "arms": [arm.document() for arm in self.arms],
            "measures": [
                {"measure": measure.model_dump(), "arms": self._documents(measure)}
                for measure in self.suite.measures
            ],
        }

    def _documents(self, measure: Measure) -> dict[str, Any]:
        documents = {}
        for arm in self.arms:
            found = self.get(measure, arm)
            if found is None:
                continue
            documents[arm.name] = {
                **asdict(found.estimate),
                "disagreements": found.counted.disagreements,
                "second_missing": found.counted.second_missing,
                "difference": None if found.difference is None else asdict(found.difference),
            }
        return documents

    def _measured(
        self, measure: Measure, counted: Counted, counts: Mapping[str, Counted], name: str
    ) -> Measured:
        statistic, seed = statistic_of(measure), self.suite.seed
        own = estimate(counted.values, statistic, seed=seed, missing=counted.missing)
        if name == Role.NO_OP:
            return Measured(counted, own, None)
        base = counts[Role.NO_OP].values
        return Measured(counted, own, difference(base, counted.values, statistic, seed=seed))


def _rows(
    cells: CellStore, files: Sequence[Mapping[str, str]], dataset: str, items: Mapping[str, Item]
) -> Rows:
    of_task = {e["task"]: cells.read(e["file"]) for e in files if e["dataset"] == dataset}
    labels = {
        task.removeprefix(_VERDICTS): {row["item"]: row["label"] for row in rows}
        for task, rows in of_task.items()
        if task.startswith(_VERDICTS)
    }
    return Rows(of_task, labels, items)
