"""The job kind `heads`: many prompts, or every head scaled in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import Field

from server.engine.engine import Engine
from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example, example_list
from server.measure.heads import HeadMethod, HeadsQuery, check_heads, rank_on_engine
from server.measure.instrument import Instrument
from server.measure.probe import plan_probe
from steering.plan import PlannedMonitor

MAX_PROMPTS: Final = 2048


class HeadsJob(HeadsQuery):
    """What is asked about attention heads and a probe, of many prompts."""

    prompts: Annotated[tuple[Example, ...], example_list(MAX_PROMPTS)] = Field(
        description="Chats or texts; a chat may end with the assistant's thought.",
        json_schema_extra={"minItems": 1, "maxItems": MAX_PROMPTS},
    )


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, the probe where it is read, and the prompts in tokens."""

    query: HeadsQuery
    probe: PlannedMonitor
    prompts: list[tuple[int, ...]]

    @classmethod
    def parse(
        cls, request: Mapping[str, Any], engine: Engine, directions: RequestDirections
    ) -> Self:
        query = HeadsJob.from_dict(request)
        # Scaling heads may weaken what the probe reads, so all that its direction asks for counts.
        find = directions.read if query.profile is None else directions.derive
        info = engine.info()
        probe = plan_probe(query.probe, find(query.probe.direction, "probe"), info.spec)
        check_heads(engine, query, probe)
        return cls(query, probe, query.endings(engine.tokenizer, info.max_model_len))


async def _run(asked: _Request, context: JobContext) -> dict[str, Any]:
    engine = context.engine
    query, probe, prompts = asked.query, asked.probe, asked.prompts

    async def progress(done: int, total: int) -> None:
        await context.report(done / total, f"scaled {done} of {total} heads")

    instrument = Instrument(engine, name=f"{context.job_id}-heads", compute=context.compute)
    await context.report(0.0, f"reading {len(prompts)} prompts")
    report = await rank_on_engine(engine, instrument, query, prompts, probe, progress)
    result = report.document()
    if query.profile is not None:
        saved = await context.save_direction(report.direction(context.spec))
        draft = await context.save_draft(query.profile, report.draft(saved))
        result |= {"direction": saved, "profile": draft}
    return result


HEADS = JobKind(
    name="heads",
    summary="Rank attention heads by what they do to a probe, and take the first few per cent.",
    request=HeadsJob,
    parse=_Request.parse,
    run=_run,
    options={"methods": [method.value for method in HeadMethod], "max_prompts": MAX_PROMPTS},
)
