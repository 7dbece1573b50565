"""Jobs: what is asked, what is answered, what a watcher is told."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, Literal, Self, Union

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from server.jobs.kinds import KINDS
from server.store import JobEvent as EventRecord
from server.store import JobRecord, JobStatus
from steering.documents import Texts

from .answers import Answer, Moment, Seconds
from .fields import Wire


class JobRequest(Wire):
    """A job to run; what stands beside `kind` is read by that kind, which `capabilities` lists."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "kind": "sweep",
                "intervention": {"operation": "add", "direction": "formal"},
                "strengths": [0.0, 1.0],
                "data": {"prompts": ["How do I repair a bicycle?"], "neutral": ["Hello!"]},
                "behaviour_tokens": ["Dear"],
            }
        },
    )

    kind: Annotated[str, Field(max_length=64)]

    def request(self) -> dict[str, Any]:
        """What the kind reads."""
        return dict(self.model_extra or {})

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A request of one of the kinds, told apart by `kind`."""
        shown = handler.resolve_ref_schema(handler(schema))
        kinds = handler(TypeAdapter(_requests()).core_schema)
        return {**kinds, "description": cls.__doc__, "example": shown["example"]}


_REQUIRES: Final = Field(
    default=(), description="Permissions that using what the job stores is to take."
)


@cache
def _requests() -> Any:
    """The documents of all kinds, each with its `kind`."""
    tagged = [
        create_model(
            kind.request.__name__,
            __base__=kind.request,
            __doc__=kind.summary,
            kind=(Literal[kind.name], Field(description="What is to be done.")),  # type: ignore[arg-type]
            requires=(Texts, _REQUIRES),
        )
        for kind in KINDS
    ]
    return Annotated[Union[tuple(tagged)], Field(discriminator="kind")]  # noqa: UP007


_JOB: Final[dict[str, Any]] = {
    "object": "steering.job",
    "id": "job-0123456789abcdef0123456789abcdef",
    "kind": "sweep",
    "name": None,
    "status": "running",
    "progress": 0.5,
    "message": "strength 1",
    "result": None,
    "error": None,
    "attempts": 1,
    "num_events": 3,
    "requires": [],
    "rerun_of": None,
    "model_fingerprint": "d85b9df794c9313c8a7a6184e169cabe",
    "created_at": 1764442800,
    "created_by": None,
    "started_at": 1764442801,
    "finished_at": None,
}


class _JobFailure(Answer):
    """Why a job failed: what an answer with that error would have said."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str


class Job(Answer):
    """A job at one moment, without its request."""

    model_config = ConfigDict(json_schema_extra={"example": _JOB})

    object: Literal["steering.job"] = "steering.job"
    id: str
    kind: str
    name: str | None = Field(description="What the request calls its output.")
    status: JobStatus
    progress: float = Field(description="From 0 to 1.")
    message: str = Field(description="What it does now, or how it ended.")
    result: dict[str, Any] | None = Field(description="Of its kind; null until it succeeded.")
    error: _JobFailure | None
    attempts: int
    num_events: int
    requires: list[str]
    rerun_of: str | None
    model_fingerprint: str
    created_at: Seconds
    created_by: str | None
    started_at: Seconds | None
    finished_at: Seconds | None

    @classmethod
    def of_record(cls, record: JobRecord, **more: Any) -> Self:
        """The answer that tells of a stored job."""
        error = None if record.error is None else record.error["error"]
        return cls.of(record, progress=record.fraction, error=error, **more)


class JobWithRequest(Job):
    """A job at one moment, with what was asked."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**_JOB, "request": {"strengths": [0.0, 1.0]}}}
    )

    request: dict[str, Any]


class JobEvent(Answer):
    """One step of a job's progress, as the data of a server-sent event."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "steering.job.event",
                "job": _JOB["id"],
                "number": 3,
                "at": "2025-11-29T19:00:02+00:00",
                "status": "running",
                "progress": 0.5,
                "message": "strength 1",
            }
        }
    )

    object: Literal["steering.job.event"] = "steering.job.event"
    job: str
    number: int = Field(description="From 1; also the id of the event, for `Last-Event-ID`.")
    at: Moment
    status: JobStatus
    progress: float
    message: str

    @classmethod
    def of_record(cls, job_id: str, event: EventRecord) -> Self:
        """The answer that tells of a stored event."""
        return cls.of(event, job=job_id, progress=event.fraction)
