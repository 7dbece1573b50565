"""The job `sweep`: one intervention at several strengths, what it does and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BeforeValidator, Field

from server.engine.engine import Engine
from server.jobs.context import JobContext, Progress
from server.jobs.kind import JobKind
from server.measure.baseline import Baseline
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example, place_examples
from server.measure.examples.prompts import ExamplePrompts, TokenChoice, TokenKind
from server.measure.examples.variables import TemplateVariables
from server.measure.instrument import Instrument
from server.measure.next_token import parse_behaviour_tokens
from steering.documents import AnyIntervention, Document, Number, PositionContext, Texts, refused
from steering.errors import short_repr
from steering.plan import SteeringPlan, compile_plan

MAX_STRENGTHS: Final = 64
_MAX_PROMPTS: Final = 1024


def _counted(most: int, what: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or not 0 < len(value) <= most:
            raise refused(f"is {short_repr(value)}; expected a list of 1 to {most} {what}")
        return value

    return BeforeValidator(check)


_Prompts = Annotated[
    tuple[Example, ...],
    _counted(_MAX_PROMPTS, "examples"),
    Field(json_schema_extra={"minItems": 1, "maxItems": _MAX_PROMPTS}),
]


class SweepData(Document):
    """The prompts on which an intervention is measured."""

    noun: ClassVar[str] = "data"
    prefix: ClassVar[str] = "data."

    prompts: _Prompts = Field(description="Prompts whose answers are to change.")
    neutral: _Prompts = Field(description="Prompts whose answers are not.")
    chat_template_kwargs: TemplateVariables = Field(
        default_factory=dict, description="Variables of the chat template that they are written by."
    )

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """What is absent is refused like what is null."""
        return {"prompts": None, "neutral": None} | document


class SweepJob(Document):
    """What is asked of a sweep."""

    noun: ClassVar[str] = "a sweep"

    intervention: AnyIntervention = Field(description="What is done; its strength is replaced.")
    data: SweepData = Field(description="On what it is measured.")
    behaviour_tokens: Any = Field(
        description="Tokens that begin an answer of the behaviour: ids, or texts of one token each."
    )
    strengths: Annotated[tuple[Number, ...], _counted(MAX_STRENGTHS, "numbers")] = Field(
        description="Strengths to measure it at.",
        json_schema_extra={"minItems": 1, "maxItems": MAX_STRENGTHS},
    )
    requires: Texts = Field(
        default=(), description="Permissions that using what the job saves is to take."
    )


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
        asked = SweepJob.from_dict(request)
        tokens = parse_behaviour_tokens(
            asked.behaviour_tokens, engine.tokenizer, "behaviour_tokens"
        )
        rendered = ExamplePrompts(
            *(engine.tokenizer, TokenChoice(TokenKind.LAST), None),
            engine.info().max_model_len - 1,
            asked.data.chat_template_kwargs,
        )
        prompts, neutral = (
            tuple(map(rendered.serve, place_examples(examples, f"data.{name}")))
            for name, examples in (("prompts", asked.data.prompts), ("neutral", asked.data.neutral))
        )
        strengths = tuple(dict.fromkeys(asked.strengths))
        steers = directions.steer(asked.intervention, strengths, "intervention")
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


SWEEP = JobKind(
    name="sweep",
    summary="Measure one intervention at several strengths: behaviour, KL, perplexity.",
    request=SweepJob,
    parse=_Request.parse,
    run=_run,
    options={"max_strengths": MAX_STRENGTHS},
)
