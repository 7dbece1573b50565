"""Monitors of many requests read in one product; each score is its own row under its own vector."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from steering.plan import PlannedMonitor
from steering.runtime import MonitorColumns, MonitorRead, Readouts
from steering.sites import Site, SitePoint

_POINT = SitePoint(1, Site.RESID_POST)
_WIDTH = 12


def _monitor(seed: int, bias: float = 0.0) -> PlannedMonitor:
    vector = torch.randn(_WIDTH, generator=torch.Generator().manual_seed(seed))
    return PlannedMonitor(f"m{seed}", _POINT, vector, bias)


def _reads(num_requests: int) -> list[MonitorRead]:
    """Request i reads rows [2 i + 3, 2 i + 5) under a monitor of its own and one all share."""
    shared = _monitor(99)
    return [
        MonitorRead(f"r{i}", monitor, (2 * i + 3, 2 * i + 5), position=10 * i)
        for i in range(num_requests)
        for monitor in (_monitor(i, bias=0.5 * i), shared)
    ]


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls[str(func)] += 1
        return func(*args, **kwargs or {})


def _hidden() -> Tensor:
    return torch.randn(80, _WIDTH, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


def test_every_score_is_its_own_row_under_its_own_vector() -> None:
    hidden, reads = _hidden(), _reads(30)
    readouts = Readouts(reads, [])
    readouts.read(_POINT, hidden)
    readouts.read(SitePoint(0, Site.RESID_POST), hidden)  # nothing is read there
    found = readouts.scores()
    assert [read for read, _ in found] == reads
    for read, scores in found:
        rows = hidden[slice(*read.rows)].double()
        expected = rows @ read.monitor.vector.double() + read.monitor.bias
        torch.testing.assert_close(torch.tensor(scores).double(), expected, atol=1e-5, rtol=1e-5)


def test_the_number_of_operations_does_not_grow_with_requests() -> None:
    counts = []
    for num_requests in (1, 30):
        reads, hidden = _reads(num_requests), _hidden()
        with _Counting() as counting:
            Readouts(reads, []).read(_POINT, hidden)
        counts.append(sum(counting.calls.values()))
    assert counts[0] == counts[1]


def test_columns_are_kept_while_the_monitors_are_the_same() -> None:
    columns, reads = MonitorColumns(), _reads(4)
    for _ in range(2):
        Readouts(reads, [], columns=columns).read(_POINT, _hidden())
    monitors = tuple(dict.fromkeys(read.monitor for read in reads))
    vectors, _ = columns.at(_POINT, monitors, torch.device("cpu"))
    assert columns.at(_POINT, monitors, torch.device("cpu"))[0] is vectors
    fewer, biases = columns.at(_POINT, monitors[:2], torch.device("cpu"))
    assert torch.equal(fewer, vectors[:, :2])
    assert len(biases) == 2
