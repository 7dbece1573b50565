"""Sparse changes to logits before a token is chosen: penalties, bias, forbidden end tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server.engine.request import Request, TokenCounts

from .sampled_row import SampledRow


@dataclass(frozen=True, eq=False)
class LogitEdits:
    """Changes of single logits, made in this order.

        repetition penalty r   x > 0: x / r, otherwise x * r   tokens of prompt or output
        frequency penalty f    x - f * count                   tokens of the output
        presence penalty p     x - p                           tokens of the output
        logit_bias             x + bias
        min_tokens             -inf                            end tokens, until there are enough

    Attributes:
        penalised: [2, N] int64 rows and token ids, without duplicates.
        penalties: [2, N] float32 factors r and summed subtrahends f * count + p.
        biased: [2, M] int64 rows and token ids, without duplicates.
        biases: [M] float32 addends.

    Source: presence and frequency as in the OpenAI API; repetition as in Keskar et al. 2019,
    arXiv:1909.05858 (CTRL), with the sign rule of Hugging Face's implementation.
    """

    penalised: Tensor
    penalties: Tensor
    biased: Tensor
    biases: Tensor

    @staticmethod
    def are_needed(row: SampledRow) -> bool:
        """Whether the row's logits are to be changed."""
        params = row.request.spec.sampling
        return (
            params.has_penalties or bool(params.logit_bias) or row.output_index < params.min_tokens
        )

    @classmethod
    def for_rows(
        cls, rows: Sequence[SampledRow], end_token_ids: frozenset[int], device: torch.device
    ) -> Self:
        """The changes for logits whose row i is `rows[i]`."""
        columns = [_penalties(index, row.request) for index, row in enumerate(rows)]
        penalties = np.concatenate([np.zeros((4, 0)), *columns], axis=1)
        biases = {
            (index, token): bias
            for index, row in enumerate(rows)
            for token, bias in _biases(row, end_token_ids).items()
        }
        biased = np.array(list(biases), dtype=np.int64).reshape(-1, 2).T
        return cls(
            penalised=torch.from_numpy(penalties[:2].astype(np.int64)).to(device),
            penalties=torch.from_numpy(penalties[2:].astype(np.float32)).to(device),
            biased=torch.from_numpy(np.ascontiguousarray(biased)).to(device),
            biases=torch.tensor(list(biases.values()), dtype=torch.float32, device=device),
        )

    def apply_(self, logits: Tensor) -> None:
        """Change logits [rows, V] float32 in place."""
        if self.penalised.shape[1]:
            rows, tokens = self.penalised
            factors, subtrahends = self.penalties
            chosen = logits[rows, tokens]
            chosen = torch.where(chosen > 0, chosen / factors, chosen * factors)
            logits[rows, tokens] = chosen - subtrahends
        if self.biased.shape[1]:
            rows, tokens = self.biased
            logits[rows, tokens] += self.biases


def _penalties(row: int, request: Request) -> NDArray[np.float64]:
    """[4, N]: row, token id, factor and subtrahend."""
    params = request.spec.sampling
    if not params.has_penalties:
        return np.zeros((4, 0))
    if request.token_counts is None:
        is_of_prompt = params.repetition_penalty != 1.0  # alone counts the prompt's tokens too
        request.token_counts = TokenCounts(request.spec.prompt_token_ids if is_of_prompt else ())
    request.token_counts.follow(request.output_token_ids)
    tokens, counts = request.token_counts.ids, request.token_counts.counts
    factors = np.full(len(tokens), params.repetition_penalty)
    subtrahends = params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    return np.stack([np.full(len(tokens), row), tokens, factors, subtrahends])


def _biases(row: SampledRow, end_token_ids: frozenset[int]) -> dict[int, float]:
    params = row.request.spec.sampling
    biases = dict(params.logit_bias)
    if row.output_index < params.min_tokens:
        biases |= dict.fromkeys([*end_token_ids, *params.stop_token_ids], float("-inf"))
    return biases
