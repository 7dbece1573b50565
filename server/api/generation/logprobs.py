"""Log-probabilities in the three shapes clients know."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from server.engine.outputs import TokenLogprob, TokenLogprobs

__all__ = ["chat_logprobs", "completion_logprobs", "prompt_logprobs"]

_LEAST: Final = -9999.0  # JSON has no minus infinity; vLLM writes the same


def chat_logprobs(
    entries: Sequence[TokenLogprobs], token_bytes: Callable[[int], bytes]
) -> dict[str, Any]:
    """The `logprobs` of a chat choice; a token may be part of a character, hence its bytes."""

    def entry(token: TokenLogprob) -> dict[str, Any]:
        data = list(token_bytes(token.token_id))
        return {"token": token.text, "logprob": _finite(token.logprob), "bytes": data}

    content = [
        {**entry(item.chosen), "top_logprobs": [entry(token) for token in item.top]}
        for item in entries
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    entries: Sequence[TokenLogprobs | None], first_text: str = "", offset: int = 0
) -> dict[str, Any]:
    """The `logprobs` of a completion choice: parallel lists.

    Args:
        entries: By token; None for the first token of an echoed prompt, which has none.
        first_text: That token's text.
        offset: Characters of the choice's text before these tokens.
    """
    tokens, values, tops, offsets = [], [], [], []
    for item in entries:
        text = first_text if item is None else item.chosen.text
        tokens.append(text)
        values.append(None if item is None else _finite(item.chosen.logprob))
        tops.append(None if item is None else _by_text(item))
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def prompt_logprobs(entries: Sequence[TokenLogprobs | None]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: per token, by token id; None for the first."""
    return [None if item is None else _by_id(item) for item in entries]


def _by_text(item: TokenLogprobs) -> dict[str, float]:
    by_text: dict[str, float] = {}
    for token in (*item.top, item.chosen):
        by_text.setdefault(token.text, _finite(token.logprob))
    return by_text


def _by_id(item: TokenLogprobs) -> dict[str, Any]:
    by_id = {}
    ranks = {token.token_id: rank for rank, token in enumerate(item.top, start=1)}
    for token in (item.chosen, *item.top):
        by_id[str(token.token_id)] = {
            "logprob": _finite(token.logprob),
            "rank": ranks.get(token.token_id),
            "decoded_token": token.text,
        }
    return by_id


def _finite(value: float) -> float:
    return value if math.isfinite(value) else _LEAST
