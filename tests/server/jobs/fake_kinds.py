"""Kinds of jobs that do as their request says, and tell the test when they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from server.engine.engine import Engine
from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.directions import RequestDirections
from steering.directions import Direction, DirectionKind
from steering.documents import DirectionRef
from steering.errors import InvalidFieldError
from steering.sites import Site

_FIELDS = {"steps", "stop_at", "fail_at", "error", "requires", "save", "use"}


def made_direction(name: str = "made", value: float = 1.0) -> Direction:
    vector = torch.full((8,), value)
    return Direction(name, DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": vector})


@dataclass
class Steps:
    """Kind `steps`: counts to `steps`, remembering where it is; what it does is in its request.

    It waits at step `stop_at` until `go` is set, and raises `errors[error]` at step `fail_at`.
    """

    go: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[int] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    contexts: list[JobContext] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    num_parsed: int = 0

    @property
    def kind(self) -> JobKind[Mapping[str, Any]]:
        return JobKind(
            "steps", "Counts.", self.parse, self.run, options={"steps": "how far, at most 99"}
        )

    def parse(
        self, request: Mapping[str, Any], engine: Engine, directions: RequestDirections
    ) -> Mapping[str, Any]:
        """The request, and in `used` the direction that its `use` names now."""
        self.num_parsed += 1
        for name in request:
            if name not in _FIELDS:
                raise InvalidFieldError(f"unknown field {name}", param=name)
        steps = request.get("steps")
        if not isinstance(steps, int) or steps > 99:
            raise InvalidFieldError(f"steps is {steps!r}; expected at most 99", param="steps")
        assert engine.info().spec.num_layers == 4
        if not request.get("use"):
            return request
        found = directions.read(DirectionRef.parse(request["use"], param="use"), "use")
        return {**request, "used": found.reference}

    async def run(self, request: Mapping[str, Any], context: JobContext) -> Mapping[str, Any]:
        self.contexts.append(context)
        try:
            return await self._run(request, context)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def _run(self, request: Mapping[str, Any], context: JobContext) -> Mapping[str, Any]:
        first = await context.recall("step") or 0
        for step in range(first, request["steps"]):
            if step == request.get("stop_at"):
                self.arrived.set()
                await self.go.wait()
            if step == request.get("fail_at"):
                raise self.errors[request["error"]]
            self.done.append(step)
            await context.remember("step", step + 1)
            await context.report((step + 1) / request["steps"], f"step {step + 1}")
        result = self.result or {"total": await context.compute(sum, self.done)}
        if request.get("used"):
            result["used"] = request["used"]
        if request.get("save"):
            result["direction"] = await context.save_direction(made_direction(request["save"]))
        return result
