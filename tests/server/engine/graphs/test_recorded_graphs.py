"""The emulation of CUDA graphs that the other tests here rest on: it refuses what CUDA does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from server.engine.attention import PagedAttention

from .recorded_graphs import CannotBeCapturedError, RecordedGraph, RecordedGraphs


class Step:
    """y = f(x), x a static input of [4] and y wherever the run leaves it."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self.x = torch.arange(4.0)
        self.y = torch.empty(0)
        self._compute = compute

    def run(self) -> None:
        self.y = self._compute(self.x)

    @torch.inference_mode()
    def capture(self) -> RecordedGraph:
        model = nn.Linear(4, 4)
        return RecordedGraphs(model, PagedAttention([], 1, 1)).capture(self.run, [self.x])


def test_a_replay_computes_from_what_the_inputs_hold_then() -> None:
    step = Step(lambda x: (x.view(2, 2) @ x.view(2, 2) + 1).flatten().cumsum(0))
    graph = step.capture()
    for values in ([0.0, 1.0, 2.0, 3.0], [-1.0, 0.5, 2.0, 7.0]):
        step.x.copy_(torch.tensor(values))
        graph.replay()
        want = step._compute(torch.tensor(values))
        torch.testing.assert_close(step.y, want)


def test_replays_write_in_place_where_the_run_did() -> None:
    total = torch.zeros(4)
    step = Step(lambda x: total.add_(x))
    with torch.inference_mode():
        graph = RecordedGraphs(nn.Identity(), PagedAttention([], 1, 1)).capture(
            step.run, [step.x, total]
        )
        total.zero_()
        graph.replay()
        graph.replay()
    assert total.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_what_a_run_made_is_gone_before_a_replay() -> None:
    """A result that the step does not compute anew is not that of the run before."""
    step = Step(lambda x: x.new_empty(4))
    graph = step.capture()
    with torch.inference_mode():
        step.y.fill_(1.0)
    graph.replay()
    assert step.y.isnan().all()


def test_numbers_and_branches_of_the_host_are_baked_in() -> None:
    factor = [2.0]
    step = Step(lambda x: x * factor[0] if factor[0] > 1 else x - 1)
    graph = step.capture()
    factor[0] = 0.5
    graph.replay()
    assert step.y.tolist() == [0.0, 2.0, 4.0, 6.0]


_OUTSIDE = torch.ones(4)
_KEPT: dict[str, Tensor] = {}


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x * x[1].item(),
        lambda x: x if bool(x[0] > 0) else -x,
        lambda x: x[x > 1],
        lambda x: x[: int(x[2])],
        lambda x: x.nonzero(),
        lambda x: x + _OUTSIDE,
        lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: x + torch.as_tensor([1.0] * 4),
        lambda x: x + _KEPT.setdefault("warm-up", x * 2),
        lambda x: torch.masked_select(x, x > 1),
    ],
    ids=[
        *("item", "branch", "mask", "slice", "nonzero", "outside", "from_list", "as_tensor"),
        *("kept_from_the_warm_up", "masked_select"),
    ],
)
def test_what_a_capture_cannot_hold_is_refused(compute: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CannotBeCapturedError):
        Step(compute).capture()
