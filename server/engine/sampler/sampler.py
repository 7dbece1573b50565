"""The choice of the next token from logits, for many requests at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .drawing import argmax, draw, draw_filtered
from .logprobs import PositionLogprobs, pack_logprobs, unpack_logprobs
from .sampled_row import SampledRow
from .sampling_batch import SamplingBatch

_CPU_ROWS: Final = 16  # at a time: their intermediate results stay in the processor's cache


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The outcome for one row.

    Attributes:
        token_id: The choice; means nothing where not finite.
        is_finite: False if the row held NaN or infinity, or nothing but minus infinity.
        logprobs: Log-probabilities of the model's own distribution, where asked for.
    """

    token_id: int
    is_finite: bool
    logprobs: PositionLogprobs | None = None


class Sampler:
    """Chooses tokens; holds no state between steps.

    Args:
        end_token_ids: The model's end tokens.
        beat: Called after each group of rows; must be cheap.
    """

    def __init__(
        self, end_token_ids: frozenset[int], beat: Callable[[], None] = lambda: None
    ) -> None:
        self.end_token_ids = end_token_ids
        self._beat = beat

    def sample(self, logits: Tensor, rows: Sequence[SampledRow]) -> list[SampledToken]:
        """Choose a token from each row.

        Greedy rows take the likeliest token, of equals the one with the lowest id. The others
        apply temperature, then min_p, top_k and top_p, each to what the one before leaves.

        Args:
            logits: [S, V] raw, of any float dtype; not changed.
            rows: S rows, in this order.

        Returns:
            S outcomes. On an accelerator, one host synchronisation.
        """
        size = _CPU_ROWS if logits.device.type == "cpu" else max(len(rows), 1)
        outcomes: list[SampledToken] = []
        for start in range(0, len(rows), size):
            group = slice(start, start + size)
            outcomes += self._sample_rows(logits[group], rows[group])
            self._beat()
        return outcomes

    def _sample_rows(self, logits: Tensor, rows: Sequence[SampledRow]) -> list[SampledToken]:
        batch = SamplingBatch.from_rows(rows, logits.shape[-1], self.end_token_ids, logits.device)
        token_ids, maxima = argmax(logits)  # [S], [S]
        is_finite = maxima.isfinite()
        if batch.edits is not None or batch.random_rows:
            token_ids = _choose(logits, token_ids, batch)
        packed = _pack_logprobs(logits, token_ids, batch) if batch.logprob_rows else None
        choices = torch.stack([token_ids.double(), is_finite.double()], dim=1)  # [S, 2]
        return _read_back(choices, packed, batch)


def _choose(logits: Tensor, greedy_ids: Tensor, batch: SamplingBatch) -> Tensor:
    """[S] token ids, given those of plain greedy rows."""
    chosen = greedy_ids.clone()
    edited = logits[list(batch.edited_rows)].float()  # [E, V], a copy
    if batch.edits is not None:
        batch.edits.apply_(edited)
        chosen[list(batch.edited_rows)] = argmax(edited)[0]
    if batch.random_rows:
        random = logits[list(batch.random_rows)].float()  # [R, V], a copy
        random[batch.edited_random] = edited[batch.random_edited]
        chosen[list(batch.random_rows)] = _draw(random, batch)
    return chosen


def _draw(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """[R] token ids drawn from float32 logits [R, V], which are overwritten."""
    # Shifted first: however small the temperature, the largest logit stays 0 / T = 0.
    logits -= logits.amax(dim=-1, keepdim=True)
    logits /= batch.temperatures[:, None]
    probabilities = logits.softmax(dim=-1)  # [R, V]
    if batch.has_min_p:
        floor = batch.min_ps[:, None] * probabilities.amax(dim=-1, keepdim=True)
        probabilities.masked_fill_(probabilities < floor, 0.0)
    drawn = draw(probabilities, batch.uniforms)
    if batch.filtered:
        rows = list(batch.filtered)
        drawn[rows] = draw_filtered(
            probabilities[rows],
            batch.uniforms[rows],
            batch.top_ks[rows],
            batch.top_ps[rows],
            batch.max_top_k,
        )
    return drawn


def _pack_logprobs(logits: Tensor, token_ids: Tensor, batch: SamplingBatch) -> Tensor:
    """[L, 1 + 2K] for the rows that ask for log-probabilities."""
    rows = list(batch.logprob_rows)
    return pack_logprobs(logits[rows], token_ids[rows], batch.max_num_logprobs)


def _read_back(choices: Tensor, packed: Tensor | None, batch: SamplingBatch) -> list[SampledToken]:
    """Outcomes from [S, 2] ids and flags and [L, W] log-probabilities, copied at once."""
    if packed is None:
        return [SampledToken(int(token), bool(finite)) for token, finite in choices.tolist()]
    flat = torch.cat([choices.flatten(), packed.flatten()]).tolist()
    width = packed.shape[1]
    starts = iter(range(2 * batch.num_rows, len(flat), width))
    outcomes = []
    for row, num_top in enumerate(batch.num_logprobs):
        token_id, is_finite = int(flat[2 * row]), bool(flat[2 * row + 1])
        logprobs = None
        if num_top is not None:
            start = next(starts)
            logprobs = unpack_logprobs(token_id, flat[start : start + width], num_top)
        outcomes.append(SampledToken(token_id, is_finite, logprobs))
    return outcomes
