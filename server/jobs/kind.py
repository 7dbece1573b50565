"""One kind of job: what it is called, what it accepts, what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter

from server.engine.engine import Engine
from server.measure.directions import RequestDirections
from steering.documents import Document, Texts, read_at

from .context import JobContext

_Parsed = TypeVar("_Parsed")
_TEXTS: Final[TypeAdapter[Sequence[str]]] = TypeAdapter(Texts)


def declared_requires(request: Mapping[str, Any]) -> Sequence[str]:
    """Return the permissions in a request's own field `requires`.

    Raises:
        InvalidFieldError: The field is not a list of strings.
    """
    given = request.get("requires")
    return () if given is None else read_at(_TEXTS, given, "requires")


@dataclass(frozen=True, slots=True)
class JobKind(Generic[_Parsed]):
    """A kind of job. Values are registered in `server.jobs.kinds`.

    A request is the JSON body of `POST /v1/steering/jobs` without `kind` and without members that
    are null. It is stored as it came and never changed.

    Attributes:
        name: The request's `kind`.
        summary: One sentence for people.
        parse: Reads a request and checks it against the loaded model and the stored directions it
            names, before the job is accepted. Runs in a thread, and again for an attempt that finds
            its result no longer in memory, or a direction changed. Raises a `SteeringError`,
            `RequestRejectedError`, `StoreError` or `PermissionDeniedError` with `param` naming the
            field.
        run: Does what `parse` has read; returns a JSON object, the job's `result`. Raises any typed
            error; whatever it raises fails this job alone.
        requires: Permissions a key must hold to start, resume or rerun such a request, beside
            `admin` and what the directions it names ask for; every direction the job saves
            requires them all.
        options: What `/v1/capabilities` says of the kind, as JSON: methods, fields, defaults.
        request: The form of a request, for its JSON schema.
    """

    name: str
    summary: str
    parse: Callable[[Mapping[str, Any], Engine, RequestDirections], _Parsed]
    run: Callable[[_Parsed, JobContext], Awaitable[Mapping[str, Any]]]
    requires: Callable[[Mapping[str, Any]], Sequence[str]] = declared_requires
    options: Mapping[str, Any] = field(default_factory=dict)
    request: type[Document] = Document
