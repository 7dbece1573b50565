"""Tokens with which answers of a behaviour begin."""

from __future__ import annotations

from typing import Any

from server.engine.text import Tokenizer
from steering.errors import InvalidFieldError
from steering.fields import shown

__all__ = ["parse_behaviour_tokens"]


def parse_behaviour_tokens(value: Any, tokenizer: Tokenizer, param: str) -> tuple[int, ...]:
    """Read a list of token ids and texts of one token each.

    Raises:
        InvalidFieldError: Anything else.
    """
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFieldError(
            f"{param} is {shown(value)}; expected a list of token ids or texts of one token",
            param=param,
        )
    return tuple(sorted({_token(item, tokenizer, param) for item in value}))


def _token(item: Any, tokenizer: Tokenizer, param: str) -> int:
    if isinstance(item, str):
        found = tokenizer.encode(item, add_special_tokens=False)
        if len(found) == 1:
            return found[0]
        raise InvalidFieldError(
            f"{param} contains {shown(item)}, which is {len(found)} tokens; expected texts of one "
            "token, such as the first of an answer",
            param=param,
        )
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < tokenizer.vocab_size:
        return item
    raise InvalidFieldError(
        f"{param} contains {shown(item)}; expected token ids from 0 to {tokenizer.vocab_size - 1} "
        "or texts",
        param=param,
    )
