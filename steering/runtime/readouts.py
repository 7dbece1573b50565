"""Reading activations in a step: monitors (a number per token), captures (rows), gates (sums)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from steering.plan import PlannedGate, PlannedMonitor
from steering.sites import SitePoint

_Read = TypeVar("_Read")
_Monitors = tuple[PlannedMonitor, ...]


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


class MonitorColumns:
    """Vectors of monitors side by side, one matrix a point; kept while a point's do not change."""

    def __init__(self) -> None:
        self._kept: dict[SitePoint, tuple[_Monitors, Tensor, Tensor]] = {}

    def at(
        self, point: SitePoint, monitors: _Monitors, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The monitors' vectors [d, M] and biases [M], float32 on the device."""
        kept = self._kept.get(point)
        if kept is None or kept[0] != monitors or kept[1].device != device:
            vectors = torch.stack([monitor.vector for monitor in monitors], dim=1)
            biases = torch.tensor([monitor.bias for monitor in monitors], dtype=torch.float32)
            vectors, biases = (x.to(device, non_blocking=True) for x in (vectors, biases))
            kept = self._kept[point] = (monitors, vectors, biases)
        return kept[1], kept[2]


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores [n, M] of batch rows from `first` on under the distinct monitors of some reads."""

    reads: Sequence[MonitorRead]
    columns: Mapping[PlannedMonitor, int]
    first: int
    values: Tensor

    def by_read(self) -> Iterator[tuple[MonitorRead, list[float]]]:
        values = self.values.cpu().numpy()
        for read in self.reads:
            rows = slice(read.rows[0] - self.first, read.rows[1] - self.first)
            yield read, values[rows, self.columns[read.monitor]].tolist()


class Readouts:
    """The reads of one step and what they found; filled by hooks, collected after the forward.

    Reads see the activation before any edit at their point.
    """

    def __init__(
        self,
        monitors: Sequence[MonitorRead],
        captures: Sequence[CaptureRead],
        gates: Sequence[GateRead] = (),
        columns: MonitorColumns | None = None,
    ) -> None:
        """Take the reads of a step, and the columns that the step before left."""
        self._columns = columns or MonitorColumns()
        self._monitors = _by_point(monitors, lambda read: read.monitor.point)
        self._captures = _by_point(captures, lambda read: read.point)
        self._gates = _by_point(gates, lambda read: read.gate.point)
        self._scores: list[_Scores] = []
        self._rows: list[tuple[CaptureRead, Tensor]] = []
        self._sums: list[tuple[GateRead, Tensor]] = []

    @property
    def points(self) -> frozenset[SitePoint]:
        """The points at which something is read."""
        return frozenset(self._monitors) | frozenset(self._captures) | frozenset(self._gates)

    def read(self, point: SitePoint, hidden: Tensor) -> None:
        """Compute the reads at `point` from hidden [T, d]; the results stay on the device."""
        if point in self._monitors:
            self._scores.append(self._read_monitors(point, hidden))
        for capture in self._captures.get(point, ()):
            self._rows.append((capture, hidden[slice(*capture.rows)].to(torch.float32, copy=True)))
        for gate in self._gates.get(point, ()):
            # In float64 the sum does not depend on how the prompt is cut into chunks.
            self._sums.append((gate, hidden[slice(*gate.rows)].sum(dim=0, dtype=torch.float64)))

    def _read_monitors(self, point: SitePoint, hidden: Tensor) -> _Scores:
        """All monitors of all requests at a point in one product, over the rows any of them reads.

        So the number of operations does not grow with requests; a score is taken from its column.
        """
        reads = self._monitors[point]
        first, stop = min(r.rows[0] for r in reads), max(r.rows[1] for r in reads)
        monitors = tuple(dict.fromkeys(read.monitor for read in reads))
        vectors, biases = self._columns.at(point, monitors, hidden.device)
        values = torch.addmm(biases, hidden[first:stop].to(torch.float32), vectors)
        columns = {monitor: column for column, monitor in enumerate(monitors)}
        return _Scores(reads, columns, first, values)

    def scores(self) -> list[tuple[MonitorRead, list[float]]]:
        """Each monitor read with its scores, one per token; synchronises with the device."""
        return [found for scores in self._scores for found in scores.by_read()]

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
