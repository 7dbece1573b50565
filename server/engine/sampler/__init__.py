"""The next token of many requests, from their logits."""

from __future__ import annotations

from .logprobs import PositionLogprobs, prompt_logprobs
from .sampler import SampledToken, Sampler

__all__ = ["PositionLogprobs", "SampledToken", "Sampler", "prompt_logprobs"]
