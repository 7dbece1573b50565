"""The next token of many requests, from their logits."""

from __future__ import annotations

from .logprobs import PositionLogprobs, prompt_logprobs
from .sampled_row import SampledRow
from .sampler import SampledToken, Sampler

__all__ = ["PositionLogprobs", "SampledRow", "SampledToken", "Sampler", "prompt_logprobs"]
