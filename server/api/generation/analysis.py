"""What every analysis route begins with: the tokens it reads, and the steering they are under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import Request

from server.api.deps import Services
from server.api.http.errors import InvalidParameterError
from server.api.schemas.analysis import Conversation
from server.api.schemas.chat import Message
from server.api.schemas.steering import SteeringFields
from server.auth.permissions import Principal
from server.engine.request import GenerationRequest, Priority, TemplateOptions
from server.engine.sampling import SamplingParams
from server.resolver.resolution import ResolvedSteering
from server.store.audit import Actor
from steering.documents import Monitor
from steering.plan import PlannedMonitor

from .convert import engine_requests
from .prompts import Prompt, check_token_ids, encode_text, render_chat
from .steering_choice import resolve_steering


@dataclass(frozen=True, slots=True)
class _OpenChat:
    """A chat as it stood while an assistant was writing, or was about to."""

    messages: Sequence[Message]
    template_options: TemplateOptions

    @property
    def continue_final_message(self) -> bool:
        """Whether the last message is the assistant's."""
        return self.messages[-1].role == "assistant"

    @property
    def add_generation_prompt(self) -> bool:
        """Whether the template opens an assistant's turn."""
        return not self.continue_final_message


def read_conversation(services: Services, body: Conversation) -> Prompt:
    """Return the tokens of a conversation: messages, a text, or token ids.

    Raises:
        RequestError, EngineError: It cannot be rendered, or is far too long.
    """
    info, tokenizer = services.engine.info(), services.engine.tokenizer
    if body.messages is not None:
        return render_chat(
            tokenizer, _OpenChat(body.messages, body.template_options), info.max_model_len
        )
    if isinstance(body.prompt, str):
        return encode_text(tokenizer, body.prompt, info.max_model_len)
    ids = body.prompt or []
    check_token_ids(ids, info, "prompt")
    return Prompt(tuple(ids))


async def choose_analysed_steering(
    request: Request,
    services: Services,
    caller: Principal,
    actor: Actor,
    fields: SteeringFields,
) -> ResolvedSteering:
    """Look up and compile the steering that an analysis happens under.

    Raises:
        InvalidParameterError: A field is given that only an answer can have.
        InvalidSteeringError, SteeringError, StoreError, AuthError: The steering cannot be had.
    """
    if fields.compare or fields.monitors:
        name = "compare" if fields.compare else "monitors"
        raise InvalidParameterError(
            f"steering.{name} is for answers; an analysis has read-outs of its own, and compares "
            "by itself",
            param=f"steering.{name}",
        )
    return await resolve_steering(request, services, caller, actor, fields)


async def read_readouts(
    services: Services,
    caller: Principal,
    actor: Actor,
    monitors: Sequence[Monitor],
    param: str,
) -> tuple[PlannedMonitor, ...]:
    """Look up and compile the directions and probes that an analysis reads.

    Raises:
        StoreError, SteeringError, AuthError: With `param` like `readouts[0].layer`.
    """
    planned, directions = await services.pools.reads.run(
        services.resolver.plan_readouts, monitors, caller, param=param
    )
    await services.resolver.audit_reading(directions, actor)
    return planned


def readable_request(
    services: Services,
    caller: Principal,
    request_id: str,
    prompt: Prompt,
    steering: ResolvedSteering,
    max_tokens: int,
) -> GenerationRequest:
    """Make one engine request, at the priority of jobs, whose steering reaches what is read.

    Raises:
        NoEffectError, InvalidFieldError: As `engine_requests`.
    """
    # What is returned depends on every token, the last one included, as it does where prompt
    # log-probabilities are asked for and one token is generated.
    checked = SamplingParams(temperature=0.0, max_tokens=max(max_tokens, 1), prompt_logprobs=0)
    [made] = engine_requests(
        services.engine,
        request_id,
        [prompt],
        checked,
        steering,
        num_choices=1,
        cache_salt=caller.cache_salt,
    ).requests
    sampling = replace(checked, max_tokens=max_tokens, prompt_logprobs=None)
    return replace(made, sampling=sampling, priority=Priority.JOB)
