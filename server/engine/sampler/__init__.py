"""The next token of many requests, from their logits."""

from __future__ import annotations

from .logprobs import PositionLogprobs, prompt_logprobs
from .sampler import SampledToken, Sampler
from .sampling_batch import check_token_ids

__all__ = ["PositionLogprobs", "SampledToken", "Sampler", "check_token_ids", "prompt_logprobs"]
