"""What the choices of an answer hold so far: text, tokens, usage, and the steering that acted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.api.http.errors import SteeringNotAppliedError
from server.engine.outputs import (
    AppliedTemplate,
    FinishReason,
    GateState,
    MonitorReading,
    RequestOutput,
    SteeredTokens,
    TokenLogprobs,
)
from server.engine.request import GenerationRequest
from server.metrics import Metrics
from server.resolver.resolution import ResolvedSteering
from steering.documents import PositionContext
from steering.plan import SteeringPlan


@dataclass(slots=True)
class ChoiceOutput:
    """The outputs of one choice, added up.

    Attributes:
        is_first_of_prompt: Whether its prompt is counted here; further choices share it.
        thoughts: Pieces of thoughts, and `answers` of the rest; none where they are not told apart.
        num_thought_tokens: Tokens of thoughts; None where they are not told apart.
    """

    is_first_of_prompt: bool = True
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    num_thought_tokens: int | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    steered_tokens: SteeredTokens = field(default_factory=SteeredTokens)
    monitors: tuple[MonitorReading, ...] = ()
    gates: tuple[GateState | None, ...] = ()

    def add(self, output: RequestOutput) -> None:
        """Add the next output of the choice."""
        self.texts.append(output.text)
        if output.split is not None:
            self.thoughts.append(output.split.thought)
            self.answers.append(output.split.answer)
            self.num_thought_tokens = output.num_thought_tokens
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        self.finish_reason = output.finish_reason
        self.stop_reason = output.stop_reason
        self.num_prompt_tokens = output.num_prompt_tokens
        self.num_output_tokens = output.num_output_tokens
        self.num_cached_tokens = output.num_cached_tokens
        self.steered_tokens = output.steered_tokens
        self.monitors = output.monitors
        self.gates = output.gates

    @property
    def text(self) -> str:
        """The text of all outputs so far."""
        return "".join(self.texts)


def usage(choices: Sequence[ChoiceOutput]) -> dict[str, Any]:
    """Count an answer's tokens as OpenAI does: a prompt with several choices counts once."""
    first = [choice for choice in choices if choice.is_first_of_prompt]
    prompt = sum(choice.num_prompt_tokens for choice in first)
    completion = sum(choice.num_output_tokens for choice in choices)
    counted: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": sum(choice.num_cached_tokens for choice in first)
        },
    }
    thoughts = [c.num_thought_tokens for c in choices if c.num_thought_tokens is not None]
    if thoughts:
        counted["completion_tokens_details"] = {"reasoning_tokens": sum(thoughts)}
    return counted


def steering_report(steering: ResolvedSteering, choices: Sequence[ChoiceOutput]) -> dict[str, Any]:
    """Return the `steering` object of an answer.

    `steered_tokens` adds up all choices; prompt tokens count once for the choices of one prompt.
    """
    plan = steering.plan
    prompt = sum(choice.steered_tokens.prompt for choice in choices if choice.is_first_of_prompt)
    generated = sum(choice.steered_tokens.generated for choice in choices)
    return {
        "profile": steering.profile,
        "version": steering.version,
        "fingerprint": None if plan is None else plan.fingerprint,
        "applied": [] if plan is None else _applied(plan, choices),
        "dose": None if plan is None else plan.dose,
        "warnings": [] if plan is None else list(plan.warnings),
        "steered_tokens": {"prompt": prompt, "generated": generated},
        "monitors": {} if plan is None else _monitors(steering, choices),
    }


def template_report(template: AppliedTemplate) -> dict[str, Any]:
    """Return the `chat_template` object of an answer."""
    return {
        "name": template.name,
        "variables": dict(template.variables),
        "merged_system": template.merges_system,
        "not_applied": ["reasoning_effort"] if template.ignores_effort else [],
    }


def _applied(plan: SteeringPlan, choices: Sequence[ChoiceOutput]) -> list[dict[str, Any]]:
    """Return what was applied, with the state of each gate in each choice that has ended."""
    reports = list(plan.reports())
    for position, report in enumerate(reports):
        if "gate" in report:
            states = [
                (index, choice.gates[position])
                for index, choice in enumerate(choices)
                if choice.gates
            ]
            report["gate"]["states"] = [_state(index, state) for index, state in states if state]
    return reports


def _state(index: int, state: GateState) -> dict[str, Any]:
    document: dict[str, Any] = {"index": index, "open": state.is_open}
    if state.open_tokens is None:
        return document | {"score": state.score}
    tokens = {"prompt": state.open_tokens.prompt, "generated": state.open_tokens.generated}
    return document | {"open_tokens": tokens}


def _monitors(steering: ResolvedSteering, choices: Sequence[ChoiceOutput]) -> dict[str, Any]:
    """Return the readings of each direction, an entry for each choice and point."""
    readings: dict[str, list[dict[str, Any]]] = {}
    planned = () if steering.plan is None else steering.plan.monitors
    for index, choice in enumerate(choices):
        for monitor, reading in zip(planned, choice.monitors, strict=False):
            readings.setdefault(monitor.label, []).append(
                {
                    "index": index,
                    "layer": monitor.point.layer,
                    "site": monitor.point.site.value,
                    "positions": list(reading.positions),
                    "scores": [score if math.isfinite(score) else None for score in reading.scores],
                }
            )
    return readings


def check_steering_applied(
    request: GenerationRequest, output: RequestOutput, metrics: Metrics
) -> None:
    """Check of a finished sequence that some token was steered if any token that ran should be.

    An intervention whose gate stayed closed should steer none.

    Raises:
        SteeringNotAppliedError: Steering was due on a token that ran, and none was steered.
    """
    plan, steered = request.plan, output.steered_tokens
    if plan is None or not plan.interventions or steered.prompt or steered.generated:
        return
    if plan.uses_regions:
        return  # which generated tokens are in a region is the engine's knowledge
    num_run = output.num_prompt_tokens + max(output.num_output_tokens - 1, 0)
    boundary = request.steering_prompt_tokens
    context = PositionContext(
        output.num_prompt_tokens if boundary is None else boundary,
        open_gates={gate.key for gate in plan.latches},
    )
    is_due = [bool(column.any()) for column in plan.gains(0, num_run, context).T]
    states = output.gates or (None,) * len(is_due)
    is_closed = [state is not None and not state.is_open for state in states]
    left_out = [
        item.path
        for item, due, closed in zip(plan.interventions, is_due, is_closed, strict=True)
        if due and not closed
    ]
    if left_out:
        metrics.not_applied.inc()
        raise SteeringNotAppliedError(
            "steering was asked for and acted on no token; the answer is withheld",
            param=left_out[0],
        )
