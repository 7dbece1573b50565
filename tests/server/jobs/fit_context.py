"""What a fit is given, without a store: it keeps everything in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lab.corpus import Kind, prompts
from lab.corpus.prompt import Split
from server.auth.permissions import LOCAL_USER
from server.engine.engine import Engine
from server.jobs.kind import JobKind
from server.measure.directions import RequestDirections
from server.store.errors import DirectionNotFoundError
from steering.directions import Direction
from steering.documents import DirectionRef
from steering.model_spec import ModelSpec

_T = TypeVar("_T")

__all__ = ["MemoryContext", "run_job", "texts"]


def texts(kind: Kind, count: int, *, split: Split = "train", seed: int = 0) -> list[str]:
    """So many prompts of one kind."""
    return [prompt.text for prompt in prompts(split, kind, count, seed)]


@dataclass
class MemoryContext:
    """Stands in for `JobContext`; `on_report` may raise to end the job."""

    engine: Engine
    job_id: str = "job"
    saved: list[Direction] = field(default_factory=list)
    drafts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stored: dict[str, Direction] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)
    reports: list[tuple[float, str]] = field(default_factory=list)
    on_report: Callable[[float, str], None] = lambda _fraction, _message: None

    @property
    def spec(self) -> ModelSpec:
        return self.engine.info().spec

    @property
    def directions(self) -> RequestDirections:
        return RequestDirections(self._find, LOCAL_USER.require, self.spec)

    async def report(self, fraction: float, message: str) -> None:
        self.reports.append((fraction, message))
        self.on_report(fraction, message)

    async def compute(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        return function(*args, **kwargs)

    async def save_direction(self, direction: Direction) -> str:
        self.saved.append(direction)
        return f"{direction.name}@{len(self.saved)}"

    async def save_draft(self, name: str, document: Mapping[str, Any]) -> str:
        self.drafts.append((name, dict(document)))
        return f"{name}@{len(self.drafts)}"

    async def remember(self, key: str, value: Any) -> None:
        self.memory[key] = json.dumps(value, allow_nan=False)

    async def recall(self, key: str) -> Any:
        return json.loads(self.memory[key]) if key in self.memory else None

    def _find(self, reference: DirectionRef) -> Direction:
        if str(reference) not in self.stored:
            raise DirectionNotFoundError(f"there is no {reference}")
        return self.stored[str(reference)]


async def run_job(
    kind: JobKind[Any], request: Mapping[str, Any], context: MemoryContext
) -> Mapping[str, Any]:
    """The result of a job, parsed and run as a fresh attempt at it is."""
    parsed = await context.compute(kind.parse, request, context.engine, context.directions)
    return await kind.run(parsed, context)  # type: ignore[arg-type]
