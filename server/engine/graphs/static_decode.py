"""One decode step over static buffers: what it is keyed by, what is copied in, what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from server.engine.attention import ScheduledSequence, StaticSize
from steering.runtime import Field, GateLog, Readouts, StaticBuffers, StaticShape, StaticTaps
from steering.sites import SitePoint

from .capture import Graph, GraphBackend

if TYPE_CHECKING:
    from server.engine.attention import PagedAttention
    from steering.runtime import PreparedStep, SteeringRuntime, StepOutcome


_CHECKED_REPLAYS: Final = 2
"""The one after the capture, and the first of another batch: it shows what was baked in."""

_TOLERANCE: Final = 0.02
"""Largest difference over the largest logit: the kernels are the same, so it is mostly zero."""


@dataclass(frozen=True, eq=False)
class DecodeBatch:
    """What a step runs. It can be captured where each request runs one token and is sampled.

    Attributes:
        token_ids: The tokens of all requests.
        sequences: Where they stand: block tables and positions.
        steering: The gains of each.
        readouts: What is read of activations; filled by the run.
    """

    token_ids: Sequence[int]
    sequences: Sequence[ScheduledSequence]
    steering: PreparedStep
    readouts: Readouts


@dataclass(frozen=True)
class DecodeShape:
    """All that shapes a decode step; everything else of it is copied into buffers.

    Attributes:
        size: Rows with those left over, and blocks that each has room for.
        steering: Live points, kinds of lanes and rows per token.
        read_points: Where activations are kept for monitors and captures.
    """

    size: StaticSize
    steering: StaticShape
    read_points: frozenset[SitePoint]


class StaticDecode:
    """A captured decode step, replayed for every batch of its shape.

    Rows left over run token 0 at position 0 in the spare block, unsteered and read by nobody.
    """

    def __init__(
        self,
        shape: DecodeShape,
        batch: DecodeBatch,
        model: Any,
        attention: PagedAttention,
        runtime: SteeringRuntime,
        device: torch.device,
    ) -> None:
        """Lay out buffers for `shape`, which is that of `batch`; captures nothing yet."""
        rows = shape.size.num_rows
        self._model = model
        self._runtime = runtime
        self._attention = attention.static_step(shape.size)
        self._steering = runtime.static_steering(batch.steering.static, rows)
        self._read_points = shape.read_points
        own = {"ids": Field((1, rows), np.int64), "positions": Field((1, rows), np.int64)}
        fields = own | self._attention.fields | self._steering.fields
        self._buffers = StaticBuffers(fields, device)
        self._attention.bind(self._buffers)
        self._steering.bind(self._buffers)
        self._outputs: _Outputs | None = None
        self._graph: Graph | None = None
        self._num_checked = 0

    @property
    def num_bytes(self) -> int:
        """Memory of the device that it keeps."""
        assert self._graph is not None, "not captured yet"
        return self._graph.num_bytes + self._buffers.storage.nbytes

    @property
    def is_current(self) -> bool:
        """Whether what it reads is where it was when it was captured."""
        return self._runtime.is_current(self._steering)

    def capture(self, backend: GraphBackend) -> None:
        """Capture the step, with the batch that was loaded last in the buffers.

        Raises:
            RuntimeError: It does what cannot be captured, or memory is short.
        """
        self._buffers.upload()
        reads = [self._buffers.storage, *self._steering.tensors]
        self._graph = backend.capture(self._run, reads)

    def load(self, batch: DecodeBatch) -> bool:
        """Write a batch to the host's side of the buffers.

        Returns:
            False where this step is void, as tables that it reads have moved.
        """
        if not self._runtime.load_static(self._steering, batch.steering.static):
            return False
        host, count = self._buffers.host, len(batch.token_ids)
        host["ids"][0, :count] = batch.token_ids
        host["ids"][0, count:] = 0
        host["positions"][0, :count] = [sequence.start for sequence in batch.sequences]
        host["positions"][0, count:] = 0
        self._attention.load(batch.sequences)
        return True

    def replay(self, batch: DecodeBatch) -> tuple[Tensor, StepOutcome]:
        """Run the batch that was loaded last.

        The first replays are compared with runs over the same buffers.

        Returns:
            Logits [N, V], which the next replay of any graph overwrites, and the outcome of its
            steering.

        Raises:
            RuntimeError: A replay gives other logits than the run.
        """
        assert self._graph is not None, "replay before capture"
        self._buffers.upload()
        if self._num_checked < _CHECKED_REPLAYS:
            self._check(len(batch.token_ids))
        self._graph.replay()
        outputs = self._outputs
        assert outputs is not None, "a graph that never ran"
        outputs.taps.replay_into(batch.readouts, len(batch.token_ids))
        outcome = batch.steering.outcome(self._steering.log(outputs.gates), None)
        return outputs.logits[: len(batch.token_ids)], outcome

    def _check(self, num_rows: int) -> None:
        """Compare a replay with a run, whose keys and values are the same ones."""
        assert self._graph is not None
        outputs = self._outputs
        self._run()
        assert self._outputs is not None
        want = self._outputs.logits[:num_rows].float()
        self._outputs = outputs
        self._graph.replay()
        assert self._outputs is not None, "a graph that never ran"
        got = self._outputs.logits[:num_rows].float()
        allowed = _TOLERANCE * float(want.nan_to_num().abs().max().clamp(min=1.0))
        if not torch.allclose(got, want, rtol=0.0, atol=allowed, equal_nan=True):
            raise RuntimeError("a replay gives other logits than the step that was captured")
        self._num_checked += 1

    def _run(self) -> None:
        tensors = self._buffers.tensors
        taps, log = StaticTaps(self._read_points), GateLog()
        self._attention.begin()
        self._runtime.begin_static(self._steering, log, taps)
        try:
            logits = self._model(
                input_ids=tensors["ids"], position_ids=tensors["positions"], use_cache=False
            ).logits[0]
        finally:
            self._runtime.end_step()
        self._outputs = _Outputs(logits, taps, self._steering.noted(log))


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Where a run left what it made: logits [rows, V], activations, values of gates by group."""

    logits: Tensor
    taps: StaticTaps
    gates: dict[int, Tensor]
