"""Looking inside: scores of known text, traces, cliffs and heads, under any steering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from coxswain_client.call import Call, read_as
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.analysis import Cliffs, Heads, Score, Trace
from coxswain_client.models.generation import ChatMessage
from coxswain_client.models.steering import Monitor, SteeringOptions
from coxswain_client.sender import AsyncSender, Sender

_S = TypeVar("_S", bound=Sender | AsyncSender)
_PATH = "/v1/steering/analyze"


def _score(
    *,
    messages: Sequence[ChatMessage] | None = None,
    prompt: str | Sequence[int] | None = None,
    continuation: str | Sequence[int] | None = None,
    steering: SteeringOptions | None = None,
    **options: Any,
) -> Call[Score]:
    """Log-probabilities of known text, and how far steering moves each distribution.

    Args:
        messages: A chat; give either this or `prompt`.
        prompt: A text, or token ids.
        continuation: What is scored after chat or prompt; without it, all of it is.
        steering: Steering under which it is scored.
        options: Further members of the body, such as `chat_template_kwargs` of a chat.
    """
    body = _given(
        messages=None if messages is None else list(messages),
        prompt=prompt,
        continuation=continuation,
        steering=steering,
        **options,
    )
    return Call("POST", f"{_PATH}/score", read_as(Score), json=body)


def _trace(
    readouts: Sequence[Monitor],
    *,
    messages: Sequence[ChatMessage] | None = None,
    prompt: str | Sequence[int] | None = None,
    max_tokens: int = 0,
    steering: SteeringOptions | None = None,
    **options: Any,
) -> Call[Trace]:
    """Directions and probes read at every token of a conversation.

    Args:
        readouts: Directions, each with `layer` and `site` where it is not to be read where it was
            stored; 512 at most.
        messages: A chat, left open where its last message is the assistant's; give either this or
            `prompt`.
        prompt: A text, or token ids.
        max_tokens: Tokens generated first, greedily, and read too.
        steering: Steering under which tokens are read and generated.
        options: Further members of the body, such as `chat_template_kwargs` of a chat.
    """
    body = _given(
        readouts=list(readouts),
        messages=None if messages is None else list(messages),
        prompt=prompt,
        max_tokens=max_tokens,
        steering=steering,
        **options,
    )
    return Call("POST", f"{_PATH}/trace", read_as(Trace), json=body)


def _cliff(
    conversations: Sequence[Sequence[ChatMessage]],
    probe: str | Monitor,
    *,
    steering: SteeringOptions | None = None,
    **options: Any,
) -> Call[Cliffs]:
    """Score curves of rollouts under a probe, with plateau, final and cliff; 256 at most.

    More go through a job of kind `cliff`.

    Args:
        conversations: Chats that end with `<think> thought </think> answer`.
        probe: By name, or as a monitor where it is read elsewhere than it was stored.
        steering: Steering under which they are read.
        options: `thinking_portion`, `trim`, `plateau`, `points`, `padding`, `curves`,
            `chat_template_kwargs`.
    """
    body = _given(
        conversations=list(conversations),
        probe=probe,
        steering=steering,
        **options,
    )
    return Call("POST", f"{_PATH}/cliff", read_as(Cliffs), json=body)


def _heads(
    prompts: Sequence[str | Sequence[ChatMessage]],
    probe: str | Monitor,
    *,
    method: str = "attribution",
    profile: str | None = None,
    **options: Any,
) -> Call[Heads]:
    """Attention heads by what they do to a probe where answers begin; 256 prompts at most.

    Args:
        prompts: Texts or chats, which may end with the assistant's thought.
        probe: By name, or as a monitor where it is read elsewhere than it was stored.
        method: `attribution`, or `causal`: each head scaled in turn.
        profile: Save the first few per cent as a draft profile of this name.
        options: `fold`, `factor`, `percent`, `gamma`, `seed`, `check`, `requires`,
            `chat_template_kwargs`.
    """
    items = [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    body = _given(prompts=items, probe=probe, method=method, profile=profile, **options)
    return Call("POST", f"{_PATH}/heads", read_as(Heads), json=body)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


class Analysis(Resource[_S]):
    """Scores of known text, traces, cliffs and heads."""

    score = Endpoint(_score)
    trace = Endpoint(_trace)
    cliff = Endpoint(_cliff)
    heads = Endpoint(_heads)
