"""The job kind `cliff`: a set of rollouts too large for one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import Field

from server.engine.engine import Engine
from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.cliff import CliffQuery, cliff_document, measure_rollouts
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example, example_list
from server.measure.instrument import Instrument
from server.measure.probe import YesOrNo, plan_probe
from server.measure.rollout import Rollout
from steering.plan import PlannedMonitor, SteeringPlan

MAX_CONVERSATIONS: Final = 20_000


class CliffJob(CliffQuery):
    """What is asked about the cliffs of many rollouts."""

    conversations: Annotated[tuple[Example, ...], example_list(MAX_CONVERSATIONS)] = Field(
        description="Rollouts, each ending with the assistant's thought (and answer).",
        json_schema_extra={"minItems": 1, "maxItems": MAX_CONVERSATIONS},
    )
    curves: YesOrNo = Field(
        default=False, description="Whether the curve of each rollout is returned."
    )


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, the probe where it is read, and the conversations in tokens."""

    query: CliffQuery
    probe: PlannedMonitor
    rollouts: list[Rollout]

    @classmethod
    def parse(
        cls, request: Mapping[str, Any], engine: Engine, directions: RequestDirections
    ) -> Self:
        own = {key: value for key, value in request.items() if key != "requires"}
        query = CliffJob.from_dict(own)
        info = engine.info()
        direction = directions.read(query.probe.direction, "probe")
        probe = plan_probe(query.probe, direction, info.spec)
        return cls(query, probe, query.rollouts(engine.tokenizer, info.max_model_len))


async def _run(asked: _Request, context: JobContext) -> dict[str, Any]:
    engine = context.engine
    query = asked.query

    async def progress(done: int, total: int) -> None:
        await context.report(done / total, f"read {done} of {total} rollouts")

    instrument = Instrument(
        engine, name=f"{context.job_id}-cliff", on_batch=progress, compute=context.compute
    )
    plan = SteeringPlan((), (asked.probe,), context.spec.num_layers)
    curves = await measure_rollouts(instrument, asked.rollouts, plan, query.trim)
    return await context.compute(cliff_document, curves, query, asked.probe)


CLIFF = JobKind(
    name="cliff",
    summary="Measure the refusal cliff of many rollouts, and rank them by it.",
    request=CliffJob,
    parse=_Request.parse,
    run=_run,
    options={"max_conversations": MAX_CONVERSATIONS},
)
