"""What an answer says of its steering, and the check that it is true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from server.api.http.errors import SteeringNotAppliedError
from server.engine.outputs import GateState, RequestOutput
from server.engine.request import GenerationRequest
from server.metrics import Metrics
from server.resolver.resolution import ResolvedSteering
from steering.plan import SteeringPlan
from steering.scopes import PositionContext

from .tally import Tally

__all__ = ["check_applied", "steering_report"]


def steering_report(steering: ResolvedSteering, choices: Sequence[Tally]) -> dict[str, Any]:
    """The `steering` object of an answer.

    `steered_tokens` adds up all choices; prompt tokens count once for the choices of one prompt.
    """
    plan = steering.plan
    prompt = sum(tally.steered_tokens.prompt for tally in choices if tally.is_first_of_prompt)
    generated = sum(tally.steered_tokens.generated for tally in choices)
    return {
        "profile": steering.profile,
        "version": steering.version,
        "fingerprint": None if plan is None else plan.fingerprint,
        "applied": [] if plan is None else _applied(plan, choices),
        "steered_tokens": {"prompt": prompt, "generated": generated},
        "monitors": {} if plan is None else _monitors(steering, choices),
    }


def _applied(plan: SteeringPlan, choices: Sequence[Tally]) -> list[dict[str, Any]]:
    """What was applied; a gate with its state in each choice that has ended."""
    reports = list(plan.reports())
    for position, report in enumerate(reports):
        if "gate" in report:
            states = [
                (index, tally.gates[position]) for index, tally in enumerate(choices) if tally.gates
            ]
            report["gate"]["states"] = [_state(index, state) for index, state in states if state]
    return reports


def _state(index: int, state: GateState) -> dict[str, Any]:
    document: dict[str, Any] = {"index": index, "open": state.is_open}
    if state.open_tokens is None:
        return document | {"score": state.score}
    tokens = {"prompt": state.open_tokens.prompt, "generated": state.open_tokens.generated}
    return document | {"open_tokens": tokens}


def _monitors(steering: ResolvedSteering, choices: Sequence[Tally]) -> dict[str, Any]:
    """Readings by direction: one entry per choice and point."""
    readings: dict[str, list[dict[str, Any]]] = {}
    planned = () if steering.plan is None else steering.plan.monitors
    for index, tally in enumerate(choices):
        for monitor, reading in zip(planned, tally.monitors, strict=False):
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


def check_applied(request: GenerationRequest, output: RequestOutput, metrics: Metrics) -> None:
    """Check a finished sequence: where a gain was due on a token that ran, some token was steered.

    An intervention whose gate stayed closed was not due.

    Raises:
        SteeringNotAppliedError: None was.
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
