"""Runs the model over one step's tokens: all requests packed in one [1, T] forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steering.runtime import CaptureRead, GateRead, MonitorColumns, MonitorRead, Readouts, StepRow

from .attention import ScheduledSequence
from .graphs import DecodeBatch
from .outputs import StepMode

if TYPE_CHECKING:
    from steering.runtime import SteeringRuntime, StepOutcome

    from .attention import PagedAttention
    from .graphs import DecodeGraphs
    from .scheduler import ScheduledRequest, SchedulerOutput


@dataclass(frozen=True, eq=False)
class PromptLogits:
    """Logits of known text.

    Attributes:
        part: The part whose prompt it is.
        first: Absolute position of the first row.
        logits: [n, V] at positions `first` to `first + n`, which predict the token after each.
    """

    part: ScheduledRequest
    first: int
    logits: Tensor


@dataclass(frozen=True, eq=False)
class RunResult:
    """The results of one forward pass; tensors stay on the device.

    Attributes:
        sampled: Parts whose next tokens are to be sampled, in the order of `logits`.
        logits: [S, V] in the model's dtype; `num_sampled` rows of each of these parts.
        prompt_logits: Those wanted for scores and prompt log-probabilities.
        outcome: The effect of steering on each token of the pack.
        readouts: Monitors' scores, captured activations and what gates read.
        mode: How the device was told what to do.
    """

    sampled: tuple[ScheduledRequest, ...]
    logits: Tensor
    prompt_logits: tuple[PromptLogits, ...]
    outcome: StepOutcome
    readouts: Readouts
    mode: StepMode


class ModelRunner:
    """The model with its attention and its steering; used by the engine's thread alone."""

    def __init__(
        self,
        model: nn.Module,
        attention: PagedAttention,
        runtime: SteeringRuntime,
        device: torch.device,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        """Take the parts.

        Args:
            model: A loaded model whose hooks call `runtime`.
            attention: Its attention.
            runtime: Its steering.
            device: Where token ids go.
            graphs: Runs steps in which each request decodes one token; None runs all eagerly.
        """
        self._model = model
        self._attention = attention
        self._runtime = runtime
        self._device = device
        self._graphs = graphs
        self._columns = MonitorColumns()

    @torch.inference_mode()
    def run(self, output: SchedulerOutput) -> RunResult:
        """Compute a step; writes keys and values, and leaves the model unsteered."""
        parts = output.scheduled
        # The output projection is the widest product of small models: only rows that somebody reads
        # pass through it.
        wanted = _WantedLogits(parts)
        batch = DecodeBatch(
            token_ids=[token for part in parts for token in part.token_ids],
            sequences=[
                ScheduledSequence(
                    p.request.block_table, p.start, p.num_tokens, p.request.num_stored_tokens
                )
                for p in parts
            ],
            steering=self._runtime.prepare(
                [StepRow(p.request.spec.plan, p.start, p.stop, p.request.positions) for p in parts]
            ),
            readouts=_readouts(parts, self._columns),
        )
        ran = self._graphs.run(batch) if self._graphs and wanted.is_of_single_tokens else None
        logits, outcome, mode = ran or self._run_eagerly(batch, wanted.rows)
        if not wanted.sampled and logits.device.type != "cpu":
            # Sampling reads back and so waits for the device. A step that samples nothing would end
            # when its work was enqueued, and the pace would learn from too short a time.
            torch.accelerator.synchronize(logits.device)
        return RunResult(
            sampled=wanted.sampled,
            logits=logits[wanted.sampled_from :],
            prompt_logits=wanted.split_prompts(logits),
            outcome=outcome,
            readouts=batch.readouts,
            mode=mode,
        )

    def _run_eagerly(
        self, batch: DecodeBatch, wanted: Sequence[int]
    ) -> tuple[Tensor, StepOutcome, StepMode]:
        """One forward of any step; logits [len(wanted), V] of the rows wanted."""
        positions = [np.arange(s.start, s.stop) for s in batch.sequences]
        self._attention.begin_step(batch.sequences)
        outcome = self._runtime.begin(batch.steering, batch.readouts)
        try:
            logits = self._model(
                input_ids=self._row(batch.token_ids),
                position_ids=self._row(np.concatenate(positions)),
                use_cache=False,
                logits_to_keep=self._row(wanted)[0],
            ).logits[0]
        finally:
            self._runtime.end_step()
        return logits, outcome, StepMode.EAGER

    def clear(self) -> None:
        """Forget all keys and values, after a step that failed half way."""
        self._attention.clear()

    def _row(self, values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        # Not awaited: the copy is ordered before the kernels that read it.
        return torch.as_tensor(values, dtype=torch.int64).to(self._device, non_blocking=True)[None]


class _WantedLogits:
    """Rows of the pack whose logits are needed: those for prompts first, then those sampled."""

    def __init__(self, parts: Sequence[ScheduledRequest]) -> None:
        prompt_rows: list[int] = []
        sampled_rows: list[int] = []
        self._prompts: list[tuple[ScheduledRequest, int, int]] = []  # first position, count
        sampled, offset = [], 0
        for part in parts:
            start, stop = part.request.logit_window
            first = max(start, part.start)
            count = min(stop, part.stop) - first
            if count > 0:
                row = offset + first - part.start
                prompt_rows.extend(range(row, row + count))
                self._prompts.append((part, first, count))
            if part.num_sampled:
                stop = offset + part.num_tokens
                sampled_rows.extend(range(stop - part.num_sampled, stop))
                sampled.append(part)
            offset += part.num_tokens
        self.rows = prompt_rows + sampled_rows
        self.sampled = tuple(sampled)
        self.sampled_from = len(prompt_rows)
        self.is_of_single_tokens = len(sampled) == len(parts) == offset and not prompt_rows
        """Whether each part runs one token, and samples after it."""

    def split_prompts(self, logits: Tensor) -> tuple[PromptLogits, ...]:
        counts = [count for *_, count in self._prompts]
        pieces = torch.split(logits[: self.sampled_from], counts)
        return tuple(
            PromptLogits(part, first, piece)
            for (part, first, _), piece in zip(self._prompts, pieces, strict=True)
        )


def _readouts(parts: Sequence[ScheduledRequest], columns: MonitorColumns) -> Readouts:
    monitors: list[MonitorRead] = []
    captures: list[CaptureRead] = []
    gates: list[GateRead] = []
    offset = 0
    for part in parts:
        spec, request = part.request.spec, part.request
        first = max(part.start, 0 if spec.monitor_prompt else request.num_prompt_tokens - 1)
        if spec.plan is not None and first < part.stop:
            rows = (first - part.start + offset, part.num_tokens + offset)
            monitors += [
                MonitorRead(request.request_id, monitor, rows, first)
                for monitor in spec.plan.monitors
            ]
        first = max(part.start, spec.capture_positions[0])
        last = min(part.stop, spec.capture_positions[1])
        if first < last:
            rows = (first - part.start + offset, last - part.start + offset)
            captures += [
                CaptureRead(request.request_id, point, rows, first) for point in spec.capture_points
            ]
        if request.latch is not None:
            shift = offset - part.start
            gates += [
                GateRead(request.request_id, gate, (first + shift, last + shift), first)
                for gate, first, last in request.latch.reads(part.start, part.stop)
            ]
        offset += part.num_tokens
    return Readouts(monitors, captures, gates, columns)
