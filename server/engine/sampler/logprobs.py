"""Log-probabilities of chosen and likeliest tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from server.engine.outputs import TokenLogprob, TokenLogprobs

_SLICE_ROWS: Final = 256  # bounds the float32 copy of prompt logits


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """Natural-log probabilities at one position, most likely first, without text."""

    token_id: int
    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether the chosen token's log-probability is a number JSON can carry."""
        return math.isfinite(self.logprob)

    def with_text(self, token_text: Callable[[int], str]) -> TokenLogprobs:
        """The same, each token with its text."""
        chosen = TokenLogprob(self.token_id, token_text(self.token_id), self.logprob)
        top = zip(self.top_ids, self.top_logprobs, strict=True)
        return TokenLogprobs(
            chosen, tuple(TokenLogprob(token, token_text(token), value) for token, value in top)
        )


def pack_logprobs(logits: Tensor, token_ids: Tensor, num_top: int) -> Tensor:
    """Log-probabilities under the distribution softmax(logits), computed in float32.

    The chosen token's value and the top ones are read from one tensor, so that the chosen token's
    equals the largest exactly where it is the likeliest.

    Args:
        logits: [N, V] raw logits of any float dtype.
        token_ids: [N] int64, the chosen tokens.
        num_top: K, how many of the likeliest.

    Returns:
        [N, 1 + 2K] float64: chosen value, top values, top ids. No host synchronisation.
    """
    logprobs = logits.float().log_softmax(dim=-1)  # [N, V]
    chosen = logprobs.gather(1, token_ids[:, None])  # [N, 1]
    values, ids = logprobs.topk(min(num_top, logits.shape[-1]), dim=-1)  # [N, K]
    return torch.cat([chosen.double(), values.double(), ids.double()], dim=1)


def unpack_logprobs(token_id: int, packed: Sequence[float], num_top: int) -> PositionLogprobs:
    """One row of `pack_logprobs`, read back, of which the first `num_top` are wanted."""
    width = (len(packed) - 1) // 2
    return PositionLogprobs(
        token_id=token_id,
        logprob=packed[0],
        top_logprobs=tuple(packed[1 : 1 + min(num_top, width)]),
        top_ids=tuple(int(token) for token in packed[1 + width :][:num_top]),
    )


def prompt_logprobs(
    logits: Tensor, next_ids: Sequence[int], num_top: int
) -> tuple[PositionLogprobs, ...]:
    """Log-probabilities of known text: entry i is of `next_ids[i]` under row i of the logits.

    logits [N, V] of any float dtype. One host synchronisation.
    """
    chosen = torch.tensor(next_ids, dtype=torch.int64).to(logits.device)
    starts = range(0, len(next_ids), _SLICE_ROWS)
    slices = [slice(start, start + _SLICE_ROWS) for start in starts]
    packed = torch.cat([pack_logprobs(logits[s], chosen[s], num_top) for s in slices]).tolist()
    return tuple(
        unpack_logprobs(token_id, row, num_top)
        for token_id, row in zip(next_ids, packed, strict=True)
    )
