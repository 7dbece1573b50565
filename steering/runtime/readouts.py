"""Reading activations in a step: monitors (a number per token), captures (rows), gates (sums)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from steering.plan import PlannedGate, PlannedMonitor
from steering.sites import SitePoint

_Read = TypeVar("_Read")


@dataclass(frozen=True, eq=False)
class MonitorRead:
    """One monitor on the rows [start, stop) of the batch.

    Attributes:
        request_id: The request's own; handed back with the scores, like `position`.
        monitor: The vector that is read, and where.
        rows: Half-open range of batch rows, not empty.
        position: Absolute position of the first of them in its request.
    """

    request_id: str
    monitor: PlannedMonitor
    rows: tuple[int, int]
    position: int


@dataclass(frozen=True, eq=False)
class CaptureRead:
    """Whole activations of the rows [start, stop) of the batch at one point; as `MonitorRead`."""

    request_id: str
    point: SitePoint
    rows: tuple[int, int]
    position: int


@dataclass(frozen=True, eq=False)
class GateRead:
    """What a gate of the request reads of the rows [start, stop) of the batch; as `MonitorRead`."""

    request_id: str
    gate: PlannedGate
    rows: tuple[int, int]
    position: int


class PointReader(Protocol):
    """Looks at activations as they pass."""

    @property
    def points(self) -> frozenset[SitePoint]:
        """The points at which something is read."""
        ...

    def read(self, point: SitePoint, hidden: Tensor) -> None:
        """See hidden [T, d] at one of `points`, before any edit there."""
        ...


class StaticTaps:
    """Keeps activations at points of a captured step, to be read after each replay.

    What is read of them (monitors, captures) then may change from step to step: only where is part
    of the step.

    Attributes:
        points: Where.
        seen: The activations [T, d] of the last run.
    """

    def __init__(self, points: frozenset[SitePoint]) -> None:
        self.points = points
        self.seen: dict[SitePoint, Tensor] = {}

    def read(self, point: SitePoint, hidden: Tensor) -> None:
        """Keep a copy: what follows may overwrite the tensor."""
        self.seen[point] = hidden.clone()

    def replay_into(self, readouts: Readouts, num_tokens: int) -> None:
        """Have `readouts` read the first `num_tokens` tokens of the last run."""
        for point, hidden in self.seen.items():
            readouts.read(point, hidden[:num_tokens])


class Readouts:
    """The reads of one step and what they found; filled by hooks, collected after the forward.

    Reads see the activation before any edit at their point.
    """

    def __init__(
        self,
        monitors: Sequence[MonitorRead],
        captures: Sequence[CaptureRead],
        gates: Sequence[GateRead] = (),
    ) -> None:
        self._monitors = _by_point(monitors, lambda read: read.monitor.point)
        self._captures = _by_point(captures, lambda read: read.point)
        self._gates = _by_point(gates, lambda read: read.gate.point)
        self._scores: list[tuple[MonitorRead, Tensor]] = []
        self._rows: list[tuple[CaptureRead, Tensor]] = []
        self._sums: list[tuple[GateRead, Tensor]] = []

    @property
    def points(self) -> frozenset[SitePoint]:
        """The points at which something is read."""
        return frozenset(self._monitors) | frozenset(self._captures) | frozenset(self._gates)

    def read(self, point: SitePoint, hidden: Tensor) -> None:
        """Compute the reads at `point` from hidden [T, d]; the results stay on the device."""
        for read in self._monitors.get(point, ()):
            rows = hidden[slice(*read.rows)].to(torch.float32)
            vector = read.monitor.vector.to(hidden.device, non_blocking=True)
            self._scores.append((read, rows @ vector + read.monitor.bias))
        for capture in self._captures.get(point, ()):
            self._rows.append((capture, hidden[slice(*capture.rows)].to(torch.float32, copy=True)))
        for gate in self._gates.get(point, ()):
            # In float64 the sum does not depend on how the prompt is cut into chunks.
            self._sums.append((gate, hidden[slice(*gate.rows)].sum(dim=0, dtype=torch.float64)))

    def scores(self) -> list[tuple[MonitorRead, list[float]]]:
        """Each monitor read with its scores, one per token; synchronises with the device."""
        return [(read, scores.tolist()) for read, scores in self._scores]

    def rows(self) -> list[tuple[CaptureRead, Tensor]]:
        """Each capture with its rows [n, d], float32 on the CPU; synchronises with the device."""
        return [(capture, rows.cpu()) for capture, rows in self._rows]

    def sums(self) -> list[tuple[GateRead, Tensor]]:
        """Each gate's read with the sum [d] of its rows, float64 on the CPU; synchronises."""
        return [(gate, total.cpu()) for gate, total in self._sums]


def _by_point(
    reads: Sequence[_Read], point: Callable[[_Read], SitePoint]
) -> dict[SitePoint, list[_Read]]:
    found: dict[SitePoint, list[_Read]] = {}
    for read in reads:
        found.setdefault(point(read), []).append(read)
    return found
