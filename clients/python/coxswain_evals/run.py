"""Running a suite against a server: plan the arms, ask every cell, judge, and write it all down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from coxswain_client.client import AsyncCoxswain
from coxswain_client.errors import NotFoundError

from .arm import Arm
from .concurrency import map_concurrently
from .controls import NO_OP, plan_arms
from .counting import task_of
from .data import Item
from .judges import Judge
from .run_folder import Cell, CellStore, Row, RunFolder
from .suite import RateMeasure, Suite, TopicalMeasure
from .suite_file import LoadedSuite
from .tasks import Answering, Divergence, Scoring

_OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class _Run:
    client: AsyncCoxswain
    loaded: LoadedSuite
    model: str
    fingerprint: str
    store: CellStore
    on_progress: _OnProgress
    judges: Mapping[str, Judge]

    @property
    def suite(self) -> Suite:
        return self.loaded.suite

    async def cell(self, task: str, arm: Arm, dataset: str, work: Any, **settings: Any) -> Cell:
        """A cell whose rows are kept; it is asked unless they are there already."""
        suite = self.suite
        decided = {
            "model": self.model,
            "model_fingerprint": self.fingerprint,
            "system": suite.datasets[dataset].system,
            "max_tokens": suite.max_tokens,
            "temperature": suite.temperature,
            "seed": suite.seed if suite.temperature else None,
            "thinking_end": suite.thinking_end,
            **suite.template,
            **settings,
        }
        cell = Cell(task, arm, dataset, self.loaded.items[dataset], decided)
        if self.store.find(cell) is None:
            self.store.save(cell, await work(cell))
            self.on_progress(f"{task}: {arm.name} on {dataset} ({len(cell.items)} items)")
        return cell

    async def arm(self, arm: Arm) -> list[dict[str, str]]:
        """Ask everything by which an arm is measured; returns the files that hold it."""
        entries = []
        for task, dataset in sorted({(task_of(m), m.dataset) for m in self.suite.measures}):
            cell = await self.cell(task, arm, dataset, self._work(task, dataset))
            entries.append(_entry(cell))
            if task == "answers":
                entries += [_entry(verdicts) for verdicts in await self._judge(cell)]
        return entries

    def _work(self, task: str, dataset: str) -> Any:
        if task == "answers":
            return Answering(self.client, self.suite, self.model).rows
        if task == "scores":
            return Scoring(self.client, self.suite, self.model).rows

        async def diverge(cell: Cell) -> list[Row]:
            answering = Answering(self.client, self.suite, self.model)
            unsteered = await self.cell("answers", NO_OP, dataset, answering.rows)
            texts = {row["item"]: row["text"] for row in self.store.find(unsteered) or ()}
            return await Divergence(self.client, self.suite, texts).rows(cell)

        return diverge

    async def _judge(self, answers: Cell) -> list[Cell]:
        rows = self.store.find(answers) or []
        cells = []
        for name in sorted(_judges_of(self.suite, answers.dataset)):
            judge, spec = self.judges[name], self.suite.judge_spec(name)

            async def work(cell: Cell, judge: Judge = judge) -> list[Row]:
                prompts = {item.id: _prompt_of(item) for item in cell.items}

                async def one(row: Row) -> Row:
                    verdict = await judge.judge(prompts[row["item"]], row["answer"])
                    return {"item": row["item"], "label": verdict.label, "said": verdict.said}

                return await map_concurrently(self.suite.concurrency, one, rows)

            settings = {"judge": spec.model_dump(), "answers": answers.digest}
            task = f"verdicts of {name}"
            cells.append(await self.cell(task, answers.arm, answers.dataset, work, **settings))
        return cells


async def run_suite(
    client: AsyncCoxswain,
    loaded: LoadedSuite,
    folder: Path,
    *,
    resume: bool = False,
    on_progress: _OnProgress = lambda _: None,
    judge_transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Run a suite and leave everything in `folder`; `Results.read` makes numbers of it.

    Args:
        client: Client of the server; its key needs the permissions `admin`, `inline`, `read` and
            `chat`.
        loaded: The suite with its data.
        folder: Where the run is kept; it is made if it is not there.
        resume: Whether the folder may hold a run; its finished cells are not asked again.
        on_progress: Called with a line about every finished cell.
        judge_transport: How requests to judges travel; None means HTTP.

    Raises:
        RunFolderError: The folder holds something, and this is no resumption.
        EvaluationError: A control cannot be built, an answer was not steered as asked, or a judge
            gave no verdict.
        SteeringClientError: The server did not answer.
    """
    kept, suite = RunFolder(folder), loaded.suite
    kept.begin(resume=resume)
    judges = {
        name: suite.judge_spec(name).make(judge_transport)
        for name in sorted({name for d in suite.datasets for name in _judges_of(suite, d)})
    }
    try:
        server = (await client.capabilities())["model"]
        model = suite.model or str(server["name"])
        arms = await _planned(client, loaded, model, str(server["fingerprint"]), kept)
        run = _Run(
            client, loaded, model, str(server["fingerprint"]), kept.cells, on_progress, judges
        )
        cells = {arm.name: await run.arm(arm) for arm in arms if arm.steering}
    finally:
        for judge in judges.values():
            await judge.close()
    record = {
        "suite": suite.model_dump(mode="json"),
        "items": {name: [i.model_dump() for i in items] for name, items in loaded.items.items()},
        "server": {"model": model, **server},
        "arms": [arm.document() for arm in arms],
        "cells": cells,
    }
    kept.finish(record)


async def _planned(
    client: AsyncCoxswain, loaded: LoadedSuite, model: str, fingerprint: str, kept: RunFolder
) -> list[Arm]:
    """The arms, as planned before where nothing that decides them has changed.

    Measured doses differ in the last digits from one batch to another; planned again, a control
    would be another cell.
    """
    suite, calibration = loaded.suite, _calibration(loaded)
    treatments = [treatment.model_dump() for treatment in suite.treatments]
    controls = suite.controls.model_dump()
    decided = [treatments, controls, calibration, suite.max_tokens, model, fingerprint]
    digest = hashlib.sha256(json.dumps(decided).encode()).hexdigest()
    before = kept.plan(digest)
    if before is not None and await _hashes(client, before[0]) == before[1]:
        return before[0]
    arms = await plan_arms(client, suite, model, calibration)
    kept.keep_plan(digest, arms, await _hashes(client, arms))
    return arms


async def _hashes(client: AsyncCoxswain, arms: Sequence[Arm]) -> dict[str, str]:
    """SHA-256 of every direction that the arms use and the server still has."""
    found = {}
    for reference in sorted({entry["direction"] for arm in arms for entry in arm.expected}):
        with suppress(NotFoundError):
            found[reference] = (await client.directions.get(reference)).sha256
    return found


def _calibration(loaded: LoadedSuite) -> list[Any]:
    suite = loaded.suite
    chats = [name for name, dataset in suite.datasets.items() if dataset.kind == "chat"]
    name = suite.controls.calibration or next(iter(chats), None)
    if name is None:
        return []
    items = loaded.items[name][: suite.controls.calibration_items]
    return [item.turns(suite.datasets[name].system) for item in items]


def _judges_of(suite: Suite, dataset: str) -> set[str]:
    """The judges whose verdicts on a dataset's answers are counted."""
    names: set[str] = set()
    for measure in suite.measures:
        if measure.dataset != dataset or not isinstance(measure, RateMeasure | TopicalMeasure):
            continue
        names.add(measure.judge)
        if isinstance(measure, RateMeasure) and measure.second is not None:
            names.add(measure.second.judge)
    return names


def _prompt_of(item: Item) -> str:
    """The text that judges are shown as the prompt: it, or the last message of the user."""
    if item.messages is None:
        return item.prompt or ""
    asked = [turn.content for turn in item.messages if turn.role == "user"]
    return asked[-1] if asked else ""


def _entry(cell: Cell) -> dict[str, str]:
    return {"task": cell.task, "dataset": cell.dataset, "file": cell.file_name}
