"""Which decode steps are captured, and which captured one a step is replayed by."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import structlog
import torch
from torch import Tensor

from server.engine.outputs import StepMode

from .static_decode import DecodeBatch, DecodeShape, StaticDecode

if TYPE_CHECKING:
    from server.engine.attention import PagedAttention
    from steering.runtime import SteeringRuntime, StepOutcome

    from .capture import GraphBackend

_log = structlog.get_logger(__name__)

_TIMES_SEEN: Final = 3
"""Steps of one shape from which it is captured: a capture costs as much as some tens of steps."""

_MOST_SHAPES_SEEN: Final = 4096
_MOST_GRAPHS: Final = 64
_MOST_BYTES: Final = 2 * 2**30
_FIRST_ROWS: Final = (1, 2, 4)
_ROW_STEP: Final = 8


def rows_with_room(num_rows: int) -> int:
    """Rows of the captured step that serves `num_rows`: 1, 2, 4, 8, 16, 24, 32 and so on."""
    for rows in _FIRST_ROWS:
        if num_rows <= rows:
            return rows
    return -(-num_rows // _ROW_STEP) * _ROW_STEP


class DecodeGraphs:
    """Captured decode steps by shape: those used last, within a number and a size.

    A shape seen `_TIMES_SEEN` times is captured. Where a capture fails (a model that reads back,
    memory that is full), or a replay gives other logits than the step, nothing more is captured in
    this process, and the log says why: steps then run launch by launch, as without graphs.
    """

    def __init__(
        self,
        model: Any,
        attention: PagedAttention,
        runtime: SteeringRuntime,
        device: torch.device,
        backend: GraphBackend,
        max_model_len: int,
    ) -> None:
        """Take the parts of an engine whose hooks call `runtime`."""
        self._model = model
        self._attention = attention
        self._runtime = runtime
        self._device = device
        self._backend: GraphBackend | None = backend
        self._most_blocks = -(-max_model_len // attention.block_size)
        self._seen: OrderedDict[DecodeShape, int] = OrderedDict()
        self._captured: OrderedDict[DecodeShape, StaticDecode] = OrderedDict()

    @property
    def num_captured(self) -> int:
        """Captured steps that are kept."""
        return len(self._captured)

    def run(self, batch: DecodeBatch) -> tuple[Tensor, StepOutcome, StepMode] | None:
        """Run a step by a graph, captured before or now.

        Returns:
            Logits [N, V], which the next call overwrites, what became of the tokens, and how it
            ran; None where the step is to run without a graph.
        """
        shape = None if self._backend is None else self._shape(batch)
        if shape is None:
            return None
        mode, step = StepMode.REPLAYED, self._current(shape, batch)
        if step is None and not self._is_frequent(shape):
            return None
        try:
            if step is None:
                mode, step = StepMode.CAPTURED, self._capture(shape, batch)
            return *step.replay(batch), mode
        except RuntimeError as error:
            self._give_up(shape, error)
            return None

    def _shape(self, batch: DecodeBatch) -> DecodeShape | None:
        most = max(sequence.stop for sequence in batch.sequences)
        size = self._attention.static_size(
            rows_with_room(len(batch.token_ids)),
            -(-most // self._attention.block_size),
            self._most_blocks,
        )
        if size is None:
            return None
        return DecodeShape(size, batch.steering.static.shape, batch.readouts.points)

    def _current(self, shape: DecodeShape, batch: DecodeBatch) -> StaticDecode | None:
        """The captured step of this shape, loaded with the batch, unless it is void."""
        step = self._captured.get(shape)
        if step is None:
            return None
        if not step.load(batch):
            current = [(s, step) for s, step in self._captured.items() if step.is_current]
            self._captured = OrderedDict(current)
            return None
        self._captured.move_to_end(shape)
        return step

    def _is_frequent(self, shape: DecodeShape) -> bool:
        times = self._seen.pop(shape, 0) + 1
        self._seen[shape] = times
        if len(self._seen) > _MOST_SHAPES_SEEN:
            self._seen.popitem(last=False)
        return times >= _TIMES_SEEN

    def _give_up(self, shape: DecodeShape, error: RuntimeError) -> None:
        _log.warning(
            "graphs_given_up",
            rows=shape.size.num_rows,
            error=repr(error),
            message="decode steps run without graphs from now on; they are slower for it",
        )
        self._backend = None
        self._captured.clear()

    def _capture(self, shape: DecodeShape, batch: DecodeBatch) -> StaticDecode:
        assert self._backend is not None
        step = StaticDecode(shape, batch, self._model, self._attention, self._runtime, self._device)
        loaded = step.load(batch)
        assert loaded, "tables moved between two looks at them"
        step.capture(self._backend)
        self._captured[shape] = step
        self._forget_oldest()
        _log.info(
            "graph_captured",
            rows=shape.size.num_rows,
            blocks=shape.size.num_blocks,
            lanes=len(shape.steering.lanes),
            num_bytes=step.num_bytes,
        )
        return step

    def _forget_oldest(self) -> None:
        while len(self._captured) > 1 and (
            len(self._captured) > _MOST_GRAPHS
            or sum(step.num_bytes for step in self._captured.values()) > _MOST_BYTES
        ):
            self._captured.popitem(last=False)
