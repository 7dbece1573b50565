"""The job `sweep`: one intervention at several strengths, what it does and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from server.engine.engine import Engine
from server.jobs.context import JobContext, Progress
from server.jobs.kind import JobKind
from server.measure.baseline import Baseline
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example
from server.measure.examples.prompts import ExamplePrompts, TokenChoice
from server.measure.instrument import Instrument
from server.measure.next_token import parse_behaviour_tokens
from steering.documents import Intervention, PositionContext
from steering.errors import InvalidFieldError, shown
from steering.fields import check_keys, mapping, number, require
from steering.plan import SteeringPlan, compile_plan

__all__ = ["MAX_STRENGTHS", "SWEEP"]

MAX_STRENGTHS: Final = 64
_MAX_PROMPTS: Final = 1024


@dataclass(frozen=True, slots=True)
class _Request:
    """A direction, plans by strength, and prompts: to change, and to leave alone."""

    direction: str
    plans: Mapping[float, SteeringPlan]
    prompts: tuple[tuple[int, ...], ...]
    neutral: tuple[tuple[int, ...], ...]
    behaviour_tokens: tuple[int, ...]

    @classmethod
    def parse(
        cls, request: Mapping[str, Any], engine: Engine, directions: RequestDirections
    ) -> Self:
        fields = {"intervention", "strengths", "data", "behaviour_tokens", "requires"}
        check_keys(request, fields, noun="a sweep")
        document, data = (
            mapping(require(request, name, noun="a sweep"), name)
            for name in ("intervention", "data")
        )
        check_keys(data, {"prompts", "neutral"}, noun="data", prefix="data.")
        try:
            intervention = Intervention.from_dict(document)
        except InvalidFieldError as error:
            raise error.under("intervention") from None
        tokens = parse_behaviour_tokens(
            require(request, "behaviour_tokens", noun="a sweep"),
            engine.tokenizer,
            "behaviour_tokens",
        )
        choice = TokenChoice.parse(None)
        rendered = ExamplePrompts(engine.tokenizer, choice, None, engine.info().max_model_len - 1)
        prompts, neutral = (_prompts(data, name, rendered) for name in ("prompts", "neutral"))
        steers = directions.steer(intervention, _strengths(request), "intervention")
        spec = engine.info().spec
        plans = {s.intervention.strength: compile_plan([s], [], spec) for s in steers}
        _check_effect(next(iter(plans.values())), prompts)
        return cls(steers[0].direction.reference, plans, prompts, neutral, tokens)


async def _run(asked: _Request, context: JobContext) -> dict[str, Any]:
    progress = Progress(context)
    instrument = Instrument(
        context.engine,
        name=context.job_id,
        on_batch=progress.on_batch,
        compute=context.compute,
    )
    await progress.begin(0.0, 0.1, "measuring the unedited model", num_calls=4)
    baseline = await Baseline.of(instrument, asked.neutral)
    plain = await instrument.log_odds(asked.prompts, asked.behaviour_tokens)
    rows = []
    for index, (strength, edited) in enumerate(asked.plans.items()):
        start, stop = (0.1 + 0.9 * (index + step) / len(asked.plans) for step in (0, 1))
        await progress.begin(start, stop, f"strength {strength:g}", num_calls=3)
        row = await context.recall(f"strength {strength!r}")
        if row is None:
            odds = await instrument.log_odds(asked.prompts, asked.behaviour_tokens, edited)
            row = {
                "strength": strength,
                "log_odds": sum(odds) / len(odds),
                "kl": await baseline.kl(edited),
                "perplexity": await baseline.perplexity_under(edited),
            }
            await context.remember(f"strength {strength!r}", row)
        rows.append(row)
    return {
        "direction": asked.direction,
        "base": {"log_odds": sum(plain) / len(plain), "perplexity": baseline.perplexity},
        "rows": rows,
    }


def _check_effect(plan: SteeringPlan, prompts: Sequence[tuple[int, ...]]) -> None:
    """Check that the first token of every answer, which is measured, depends on the intervention.

    Raises:
        NoEffectError: Its scope selects no token of a prompt.
    """
    for prompt in () if plan.uses_regions else prompts:  # regions are refused by the engine
        context, length = PositionContext(len(prompt)), len(prompt)
        plan.check_effect(context, num_prompt_tokens=length, max_tokens=1)


def _strengths(request: Mapping[str, Any]) -> tuple[float, ...]:
    value = require(request, "strengths", noun="a sweep")
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_STRENGTHS:
        raise InvalidFieldError(
            f"strengths is {shown(value)}; expected a list of 1 to {MAX_STRENGTHS} numbers",
            param="strengths",
        )
    return tuple(dict.fromkeys(number(item, "strengths") for item in value))


def _prompts(
    data: Mapping[str, Any], name: str, rendered: ExamplePrompts
) -> tuple[tuple[int, ...], ...]:
    value = data.get(name)
    if not isinstance(value, list | tuple) or not 0 < len(value) <= _MAX_PROMPTS:
        raise InvalidFieldError(
            f"data.{name} is {shown(value)}; expected a list of 1 to {_MAX_PROMPTS} examples",
            param=f"data.{name}",
        )
    examples = (Example.parse(item, f"data.{name}[{i}]") for i, item in enumerate(value))
    return tuple(rendered.serve(example) for example in examples)


SWEEP = JobKind(
    name="sweep",
    summary="Measure one intervention at several strengths: behaviour, KL, perplexity.",
    parse=_Request.parse,
    run=_run,
    options={"max_strengths": MAX_STRENGTHS},
)
