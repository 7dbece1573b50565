"""Requests for tests of the engine's parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np

from server.engine.request import GenerationRequest, Priority, Request
from server.engine.sampler import SampledRow
from server.engine.sampling import SamplingParams
from steering.documents import PositionContext, Scope

_ordinals = count()


class ScopedPlan:
    """Steering reduced to where it acts: one edit, named by `key`, over a scope."""

    uses_regions = False

    def __init__(self, key: str, scope: Scope | None = None) -> None:
        self.key = key
        self.scope = scope or Scope()

    def block_digest(self, start: int, stop: int, context: PositionContext) -> bytes:
        mask = self.scope.mask(start, stop, context)
        if not mask.any():
            return b""
        content = self.key.encode() + mask.astype(np.float32).tobytes()
        return hashlib.blake2b(content, digest_size=16).digest()


def make_request(
    prompt: int | Sequence[int] = 8,
    *,
    max_tokens: int = 8,
    priority: Priority = Priority.INTERACTIVE,
    plan: ScopedPlan | None = None,
    cache_salt: bytes = b"",
    request_id: str | None = None,
    steering_prompt_tokens: int | None = None,
    sampling: SamplingParams | None = None,
    choice_index: int = 0,
    seed: int = 0,
) -> Request:
    """A request of so many, or of these, prompt tokens; a number gives tokens no other has."""
    ordinal = next(_ordinals)
    if isinstance(prompt, int):
        prompt = range(ordinal * 10_000, ordinal * 10_000 + prompt)
    spec = GenerationRequest(
        request_id=request_id or f"request-{ordinal}",
        prompt_token_ids=tuple(prompt),
        sampling=sampling or SamplingParams(max_tokens=max_tokens),
        plan=plan,  # type: ignore[arg-type]  # the parts use `block_digest` alone
        choice_index=choice_index,
        priority=priority,
        cache_salt=cache_salt,
        steering_prompt_tokens=steering_prompt_tokens,
    )
    return Request(spec=spec, arrival=ordinal, seed=seed, max_tokens=max_tokens)


def rows_of(requests: Iterable[Request]) -> list[SampledRow]:
    """The rows from which the next token of each is sampled."""
    return [SampledRow(request) for request in requests]
