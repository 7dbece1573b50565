"""Conversations that end where a thought has ended and its answer would begin."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from server.engine.errors import PromptTooLongError, RequestRejectedError
from server.engine.request import TemplateOptions
from steering.analysis import ThoughtSpan
from steering.errors import InvalidFieldError

from .examples.example import Example

if TYPE_CHECKING:
    from server.engine.text import EncodedChat, Tokenizer


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt, a thought, and the end-of-thinking template, in tokens.

    Attributes:
        token_ids: All tokens; the last is the last input token before the answer.
        thought: Where the thought starts, stops and its template ends.
        num_prompt_tokens: Where the assistant's own tokens begin, for steering's scopes.
        regions: Region bits per token, or None where the template does not show turns.
    """

    token_ids: tuple[int, ...]
    thought: ThoughtSpan
    num_prompt_tokens: int
    regions: bytes | None


def read_rollout(
    tokenizer: Tokenizer,
    example: Example,
    max_tokens: int,
    *,
    portion: float = 1.0,
    variables: Mapping[str, Any] = MappingProxyType({}),
) -> Rollout:
    """Return the tokens of a chat that ends with the assistant's `<think> ... </think> answer`.

    The answer is left out. The markers are written by their token ids after the template's own
    opening of the turn, because many templates drop thoughts of messages.

    Args:
        tokenizer: The served model's.
        example: The chat; errors name its place in the request.
        max_tokens: Most tokens of the rollout.
        portion: Share of the thought's tokens that is kept, from its start, 0 to 1.
        variables: Values of variables of the chat template, as when the rollout was generated.

    Raises:
        InvalidFieldError: No assistant's turn with a thought, or `portion` outside its range.
        RequestRejectedError: The model does not think, or its template refuses the chat.
        PromptTooLongError: The rollout has more than `max_tokens` tokens.
    """
    if not 0.0 <= portion <= 1.0:
        raise InvalidFieldError(
            f"thinking_portion is {portion:g}; expected 0 to 1", param="thinking_portion"
        )
    if tokenizer.thinking_ids is None or tokenizer.thinking_markers is None:
        raise RequestRejectedError(
            "this model's tokenizer has no tokens that open and close a thought, such as <think> "
            "and </think>; expected a model that thinks",
            param=example.param,
        )
    opening, closing = tokenizer.thinking_markers
    found = _thought(opening, closing).match(example.messages[-1][1])
    if found is None or not example.is_answered:
        raise InvalidFieldError(
            f"{example.param} does not end with an assistant's turn of the form "
            f"'{opening} thought {closing} answer'; send the rollout with its thought",
            param=example.param,
        )
    prompt = _render(tokenizer, example, variables)
    start_ids, body = _opening(tokenizer, prompt.token_ids, found)
    body_ids = tokenizer.encode(body, add_special_tokens=False)
    kept = body_ids[: math.ceil(portion * len(body_ids))]
    gap = body[len(body.rstrip()) :] if len(kept) < len(body_ids) else ""
    end_ids = [
        *tokenizer.encode(gap, add_special_tokens=False),
        tokenizer.thinking_ids[1],
        *tokenizer.encode(found["after"], add_special_tokens=False),
    ]
    start = len(prompt.token_ids) + len(start_ids)
    span = ThoughtSpan(start, start + len(kept), start + len(kept) + len(end_ids))
    added = [*start_ids, *kept, *end_ids]
    _check_length(example, span.end, max_tokens)
    regions = prompt.regions
    if regions is not None:
        tracker = tokenizer.region_tracker(prompt.token_ids, regions)
        regions += bytes(tracker.advance(token_id) for token_id in added)
    return Rollout((*prompt.token_ids, *added), span, len(prompt.token_ids), regions)


def read_ending(
    tokenizer: Tokenizer,
    example: Example,
    max_tokens: int,
    variables: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[int, ...]:
    """Return the tokens up to where an answer would begin: after its thought, where it has one.

    Raises:
        InvalidFieldError, RequestRejectedError: As `read_rollout`.
    """
    if example.is_answered:
        return read_rollout(tokenizer, example, max_tokens, variables=variables).token_ids
    if example.is_text and tokenizer.chat_template is None:
        token_ids = tuple(tokenizer.encode(example.messages[0][1]))
    else:
        token_ids = _render(tokenizer, example, variables).token_ids
    _check_length(example, len(token_ids), max_tokens)
    return token_ids


@cache
def _thought(opening: str, closing: str) -> re.Pattern[str]:
    """A turn up to its answer: the marker that opens a thought, its body, the one that closes."""
    return re.compile(
        rf"\s*(?P<open>{re.escape(opening)})?(?P<body>.*?)(?P<close>{re.escape(closing)})"
        r"(?P<after>\s*)",
        re.DOTALL,
    )


def _render(tokenizer: Tokenizer, example: Example, variables: Mapping[str, Any]) -> EncodedChat:
    options = TemplateOptions(variables=variables)
    try:
        return tokenizer.render_chat(example.chat(None, with_answer=False), options=options)
    except RequestRejectedError as error:
        raise RequestRejectedError(f"{example.param}: {error}", param=example.param) from error


def _opening(
    tokenizer: Tokenizer, prompt_ids: tuple[int, ...], found: re.Match[str]
) -> tuple[list[int], str]:
    """Return the tokens that open the thought, and its text after them.

    There are no such tokens where the chat template opens the thought itself.
    """
    assert tokenizer.thinking_ids is not None, "checked before"
    open_id, close_id = tokenizer.thinking_ids
    markers = [index for index, t in enumerate(prompt_ids) if t in (open_id, close_id)]
    if markers and prompt_ids[markers[-1]] == open_id:
        written = tokenizer.decode(prompt_ids[markers[-1] + 1 :])
        return [], found["body"].removeprefix(written)
    return [open_id], found["body"]


def _check_length(example: Example, num_tokens: int, max_tokens: int) -> None:
    if num_tokens > max_tokens:
        raise PromptTooLongError(
            f"{example.param} has {num_tokens:,} tokens; the model takes {max_tokens:,}",
            param=example.param,
        )
