"""Where `prompt` ends for steering, for harnesses that score text and cannot say it themselves.

lm-eval sends context and continuation as one list of token ids, and no field of its own. A header
that it sends with every request says how to find the boundary instead: after what opens the last
turn of an assistant, as the model's chat template writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from server.api.http.errors import InvalidParameterError
from server.resolver.errors import SteeringConflictError
from server.resolver.resolution import ResolvedSteering
from steering.errors import InvalidFieldError

from .prompts import Prompt

if TYPE_CHECKING:
    from server.engine.text import Tokenizer

__all__ = ["ASSISTANT_TURN", "BOUNDARY_HEADER", "with_boundaries"]

BOUNDARY_HEADER: Final = "X-Steering-Prompt-Tokens"
ASSISTANT_TURN: Final = "assistant-turn"


def with_boundaries(
    header: str | None,
    steering: ResolvedSteering,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
) -> ResolvedSteering:
    """The steering with `prompt_tokens` found as the header says; unchanged without one.

    Raises:
        InvalidParameterError: The header says something else.
        SteeringConflictError: The body says where the prompt ends too.
        InvalidFieldError: A prompt has no turn of an assistant.
    """
    if header is None:
        return steering
    if header != ASSISTANT_TURN:
        raise InvalidParameterError(
            f"{BOUNDARY_HEADER} is {header!r}; expected {ASSISTANT_TURN!r}", param=BOUNDARY_HEADER
        )
    if steering.prompt_tokens:
        raise SteeringConflictError(
            f"steering.prompt_tokens and the header {BOUNDARY_HEADER} are both given; give one",
            param="steering.prompt_tokens",
        )
    if steering.plan is None:
        return steering
    opening = _opening(tokenizer)
    boundaries = tuple(_boundary(prompt.token_ids, opening) for prompt in prompts)
    return replace(steering, prompt_tokens=boundaries)


def _opening(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the template writes before an answer."""
    messages = [{"role": "user", "content": "."}]
    with_it = tokenizer.render_chat(messages, add_generation_prompt=True).token_ids
    without = tokenizer.render_chat(messages, add_generation_prompt=False).token_ids
    return tuple(with_it[len(without) :]) if with_it[: len(without)] == without else ()


def _boundary(token_ids: Sequence[int], opening: tuple[int, ...]) -> int:
    width = len(opening)
    for start in range(len(token_ids) - width, -1, -1) if width else ():
        if tuple(token_ids[start : start + width]) == opening:
            return start + width
    raise InvalidFieldError(
        f"a prompt has no turn of an assistant, which {BOUNDARY_HEADER}: {ASSISTANT_TURN} needs; "
        "send token ids with the chat template applied, or steering.prompt_tokens",
        param=BOUNDARY_HEADER,
    )
