"""The record of what one request has produced, and how much of it its caller was sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .outputs import (
    FinishReason,
    GateState,
    MonitorReading,
    PromptScore,
    RequestOutput,
    SteeredTokens,
    TokenLogprobs,
)

if TYPE_CHECKING:
    from torch import Tensor

    from steering.plan import PlannedIntervention, PlannedMonitor
    from steering.sites import SitePoint

    from .request import Request
    from .text import Detokenizer, RegionTracker, ThoughtSplitter


class PositionFlags:
    """Flags by absolute position; a position computed again is noted again."""

    def __init__(self) -> None:
        self._flags = np.zeros(0, dtype=np.bool_)

    def note(self, start: int, mask: NDArray[np.bool_]) -> None:
        """Set the flags of positions from `start` on."""
        stop = start + len(mask)
        if stop > len(self._flags):
            grown = np.zeros(max(stop, 2 * len(self._flags)), dtype=np.bool_)
            grown[: len(self._flags)] = self._flags
            self._flags = grown
        self._flags[start:stop] = mask

    def count(self, boundary: int) -> SteeredTokens:
        """Number of flags set before `boundary`, and from `boundary` on."""
        return SteeredTokens(
            prompt=int(self._flags[:boundary].sum()), generated=int(self._flags[boundary:].sum())
        )


class RequestProgress:
    """Bookkeeping of one request, by absolute position.

    A preempted request computes positions again; what is known of a position is kept once.
    """

    def __init__(
        self,
        request: Request,
        detokenizer: Detokenizer,
        end_token_ids: frozenset[int],
        regions: RegionTracker | None,
        splitter: ThoughtSplitter | None,
    ) -> None:
        """Begin with nothing produced.

        Args:
            request: The request.
            detokenizer: Fresh; turns tokens into text and finds stop strings.
            end_token_ids: The model's end tokens, heeded unless the request ignores them.
            regions: Labels generated tokens where the request's steering needs it.
            splitter: Tells thought and answer apart where the request wants that.
        """
        self.request = request
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._regions = regions
        self._splitter = splitter
        sampling = request.spec.sampling
        own_ends = frozenset(sampling.stop_token_ids)
        self._end_token_ids = own_ends if sampling.ignore_eos else own_ends | end_token_ids
        self._stop_reason: int | str | None = None
        self._steered = PositionFlags()
        self._opened: dict[int, PositionFlags] = {}
        self._prompt_logprobs: dict[int, TokenLogprobs] = {}
        self._readings: dict[PlannedMonitor, dict[int, float]] = {m: {} for m in self._monitors}
        self._captured: dict[SitePoint, dict[int, Tensor]] = {}
        self._token_scores: dict[int, float] = {}
        self._distributions: dict[int, Tensor] = {}
        self._num_sent = 0
        self._new_text = ""
        self._new_logprobs: list[TokenLogprobs] = []

    def note_steered(self, start: int, mask: NDArray[np.bool_]) -> None:
        """Remember which of the positions from `start` on were steered."""
        self._steered.note(start, mask)

    def note_opened(self, start: int, opened: Sequence[NDArray[np.bool_] | None]) -> None:
        """Remember, per intervention, for which positions from `start` on its gate was open."""
        for index, mask in enumerate(opened):
            if mask is not None:
                self._opened.setdefault(index, PositionFlags()).note(start, mask)

    def note_cached_prefix(self) -> None:
        """Count steered tokens of the prompt whose keys and values the prefix cache held."""
        plan, stop = self.request.spec.plan, self.request.num_cached_tokens
        if plan is not None and plan.interventions and stop:
            gains = plan.gains(0, stop, self.request.positions)
            self.note_steered(0, np.any(gains, axis=1))

    def note_prompt_logprobs(self, start: int, entries: Iterable[TokenLogprobs]) -> None:
        """Remember scores of prompt tokens `start + 1` on, which positions from `start` predict."""
        for position, entry in enumerate(entries, start + 1):
            self._prompt_logprobs[position] = entry

    def note_score(self, start: int, score: PromptScore) -> None:
        """Remember what is known of the prompt's next tokens at positions from `start` on."""
        self._token_scores.update(enumerate(score.token_logprobs, start))
        if score.distributions is not None:
            self._distributions.update(enumerate(score.distributions, start))

    def note_monitor(self, monitor: PlannedMonitor, start: int, scores: Sequence[float]) -> None:
        """Remember a monitor's scores of positions from `start` on."""
        self._readings[monitor].update(enumerate(scores, start))

    def note_captured(self, point: SitePoint, start: int, rows: Tensor) -> None:
        """Remember activations [n, d] of positions from `start` on."""
        found = self._captured.setdefault(point, {})
        for offset, row in enumerate(rows):
            found[start + offset] = row

    def note_token(self, token_id: int, logprobs: TokenLogprobs | None) -> None:
        """Append a sampled token, and decide whether it ends the request."""
        request, sampling = self.request, self.request.spec.sampling
        request.output_token_ids.append(token_id)
        if self._regions is not None and request.regions is not None:
            request.regions.append(self._regions.advance(token_id))
        if logprobs is not None:
            self._new_logprobs.append(logprobs)
        num_tokens = len(request.output_token_ids)
        may_stop = num_tokens >= sampling.min_tokens
        if token_id in self._end_token_ids and may_stop:
            self.finish_reason = FinishReason.STOP
            self._stop_reason = token_id if token_id in sampling.stop_token_ids else None
        else:
            self._new_text += self._detokenizer.add(token_id)
            if self._splitter is not None:
                self._splitter.add(token_id, self._detokenizer.num_chars)
            if may_stop and self._detokenizer.stop_reason is not None:
                self.finish_reason = FinishReason.STOP
                self._stop_reason = self._detokenizer.stop_reason
        if self.finish_reason is None and num_tokens >= request.max_tokens:
            self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None:
            self._new_text += self._detokenizer.finish()

    def note_scored(self) -> None:
        """End a request that generates nothing: its prompt was all that was wanted."""
        self.finish_reason = FinishReason.LENGTH

    @property
    def has_news(self) -> bool:
        """Whether there is anything to send."""
        num_new = len(self.request.output_token_ids) - self._num_sent
        return num_new > 0 or self.finish_reason is not None

    def captured(self) -> Mapping[SitePoint, Tensor]:
        """Captured activations by point, [n, d], in order of position."""
        import torch

        return {
            point: torch.stack([rows[position] for position in sorted(rows)])
            for point, rows in self._captured.items()
        }

    def output(self) -> RequestOutput:
        """The output since the last call."""
        request = self.request
        token_ids = tuple(request.output_token_ids[self._num_sent :])
        is_first, is_last = self._num_sent == 0, self.finish_reason is not None
        splitter = self._splitter
        output = RequestOutput(
            request_id=request.request_id,
            text=self._new_text,
            token_ids=token_ids,
            num_prompt_tokens=request.num_prompt_tokens,
            num_output_tokens=len(request.output_token_ids),
            logprobs=tuple(self._new_logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self._stop_reason,
            num_cached_tokens=request.num_cached_tokens,
            prompt_logprobs=self._all_prompt_logprobs() if is_first else None,
            steered_tokens=self._steered.count(self.request.boundary),
            monitors=self._all_readings() if is_last else (),
            gates=self._gate_states() if is_last else (),
            score=self._score() if is_last else None,
            split=None if splitter is None else splitter.split(self._new_text),
            num_thought_tokens=0 if splitter is None else splitter.num_thought_tokens,
        )
        self._num_sent += len(token_ids)
        self._new_text = ""
        self._new_logprobs = []
        return output

    @property
    def _monitors(self) -> Sequence[PlannedMonitor]:
        plan = self.request.spec.plan
        return () if plan is None else plan.monitors

    def _all_prompt_logprobs(self) -> tuple[TokenLogprobs | None, ...] | None:
        if self.request.spec.sampling.prompt_logprobs is None:
            return None
        rest = range(1, self.request.num_prompt_tokens)
        return (None, *(self._prompt_logprobs[position] for position in rest))

    def _score(self) -> PromptScore | None:
        if self.request.spec.score_positions is None:
            return None
        import torch

        values = tuple(self._token_scores[p] for p in sorted(self._token_scores))
        rows = [self._distributions[p] for p in sorted(self._distributions)]
        return PromptScore(values, torch.stack(rows) if rows else None)

    def _all_readings(self) -> tuple[MonitorReading, ...]:
        return tuple(
            MonitorReading(tuple(sorted(found)), tuple(found[p] for p in sorted(found)))
            for found in (self._readings[monitor] for monitor in self._monitors)
        )

    def _gate_states(self) -> tuple[GateState | None, ...]:
        plan = self.request.spec.plan
        items = () if plan is None else plan.interventions
        return tuple(self._gate_state(index, item) for index, item in enumerate(items))

    def _gate_state(self, index: int, item: PlannedIntervention) -> GateState | None:
        latch = self.request.latch
        if item.latch is not None and latch is not None:
            key = item.latch.key
            return GateState(key in latch.open_gates, score=latch.scores.get(key))
        if not item.has_token_gate:
            return None
        opened = self._opened[index].count(self.request.boundary)
        return GateState(opened.prompt + opened.generated > 0, open_tokens=opened)
