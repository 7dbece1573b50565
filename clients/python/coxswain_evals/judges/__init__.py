"""Who says what an answer is: keyword lists, and any OpenAI-compatible endpoint."""

from __future__ import annotations

from .endpoint import EndpointJudge, EndpointSpec
from .judge import Judge, Verdict
from .keywords import REFUSAL_PHRASES, KeywordJudge, KeywordSpec
from .llama_guard import LlamaGuardJudge, LlamaGuardSpec

__all__ = [
    "REFUSAL_PHRASES",
    "EndpointJudge",
    "EndpointSpec",
    "Judge",
    "KeywordJudge",
    "KeywordSpec",
    "LlamaGuardJudge",
    "LlamaGuardSpec",
    "Verdict",
]
