"""Jobs: ask for them, watch them, end them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from coxswain_client.call import Call, below, read_as
from coxswain_client.endpoint import Endpoint, Resource, StreamEndpoint
from coxswain_client.errors import (
    APIConnectionError,
    APIStatusError,
    APIStreamError,
    APITimeoutError,
    SteeringClientError,
)
from coxswain_client.models.jobs import Job, JobEvent
from coxswain_client.models.record import Page
from coxswain_client.sender import AsyncSender, Sender

_S = TypeVar("_S", bound=Sender | AsyncSender)
_PATH: Final = "/v1/steering/jobs"
_MAX_CUTS: Final = 5
_CUT = (APIConnectionError, APITimeoutError)
_AWAY_STATUSES: Final = frozenset({502, 503, 504})
_SHUTDOWN: Final = "server_shutdown"

_OnEvent = Callable[[JobEvent], None]
_OnAway = Callable[[SteeringClientError], bool]
_OnAwayAsync = Callable[[SteeringClientError], Awaitable[bool]]


def _create(kind: str, **request: Any) -> Call[Job]:
    """Queue a job; `capabilities()["jobs"]` lists the kinds and what each reads.

    It is queued once, however often the request has to be sent.

    Args:
        kind: Kind of job, such as `fit`.
        request: Fields that this kind reads.
    """
    return Call("POST", _PATH, read_as(Job), json={"kind": kind, **request}, is_kept=True)


def _list(
    *,
    status: str | None = None,
    kind: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Page[Job]]:
    """Jobs, newest first, a page at a time; `status` and `kind` keep some."""
    params = {"status": status, "kind": kind, "limit": limit, "cursor": cursor}
    return Call("GET", _PATH, read_as(Page[Job]), params=params)


def _retrieve(job_id: str) -> Call[Job]:
    """One job with its request, and its result or error once it has ended."""
    return Call("GET", below(_PATH, job_id), read_as(Job))


def _events(job_id: str, *, after: int = 0) -> Call[JobEvent]:
    """The events of a job, from the one after number `after` until it has ended."""
    headers = {"last-event-id": str(after)} if after else {}
    return Call("GET", below(_PATH, job_id, "events"), JobEvent.model_validate, headers=headers)


def _cancel(job_id: str) -> Call[Job]:
    """End a job that waits or runs."""
    return Call("DELETE", below(_PATH, job_id), read_as(Job))


def _resume(job_id: str) -> Call[Job]:
    """Queue a job again that did not succeed; it goes on where it was."""
    return Call("POST", below(_PATH, job_id, "resume"), read_as(Job), is_kept=True)


def _rerun(job_id: str) -> Call[Job]:
    """Queue a new job with the same request."""
    return Call("POST", below(_PATH, job_id, "rerun"), read_as(Job), is_kept=True)


class _Jobs(Resource[_S]):
    create = Endpoint(_create)
    list = Endpoint(_list)
    retrieve = Endpoint(_retrieve)
    events = StreamEndpoint(_events)
    cancel = Endpoint(_cancel)
    resume = Endpoint(_resume)
    rerun = Endpoint(_rerun)


class Jobs(_Jobs[Sender]):
    """The jobs of the server."""

    def wait(
        self,
        job_id: str,
        on_event: _OnEvent | None = None,
        *,
        after: int = 0,
        on_away: _OnAway | None = None,
    ) -> Job:
        """The job when it has ended, well or not.

        A stream that breaks off is taken up again after the last event that was seen.

        Args:
            job_id: The job whose end is waited for.
            on_event: Called with every event.
            after: Number of the last event that is not wanted; earlier attempts have events too.
            on_away: Called where the server gives no answer, is starting or shutting down; true
                means to ask again.

        Raises:
            SteeringClientError: There is no such job, or the server is away.
        """
        progress = _Progress(on_event, after)
        while True:
            try:
                with self.events(job_id, after=progress.seen) as stream:
                    try:
                        for event in stream:
                            progress.take(event)
                    except _CUT as error:
                        progress.cut(error)
                        continue
                return self.retrieve(job_id)
            except SteeringClientError as error:
                if not (_is_unreachable(error) and on_away is not None and on_away(error)):
                    raise


class AsyncJobs(_Jobs[AsyncSender]):
    """The jobs of the server, for asyncio."""

    async def wait(
        self,
        job_id: str,
        on_event: _OnEvent | None = None,
        *,
        after: int = 0,
        on_away: _OnAwayAsync | None = None,
    ) -> Job:
        """The job when it has ended, well or not; as `Jobs.wait`, with `on_away` awaited."""
        progress = _Progress(on_event, after)
        while True:
            try:
                async with self.events(job_id, after=progress.seen) as stream:
                    try:
                        async for event in stream:
                            progress.take(event)
                    except _CUT as error:
                        progress.cut(error)
                        continue
                return await self.retrieve(job_id)
            except SteeringClientError as error:
                if not (_is_unreachable(error) and on_away is not None and await on_away(error)):
                    raise


def _is_unreachable(error: SteeringClientError) -> bool:
    """Whether the server may answer the same request later."""
    match error:
        case APIStatusError():
            return error.status in _AWAY_STATUSES
        case APIStreamError():
            return error.code == _SHUTDOWN
        case _:
            return isinstance(error, _CUT)


class _Progress:
    """The last event seen, and how often the stream broke since."""

    def __init__(self, on_event: _OnEvent | None, after: int) -> None:
        self.seen = after
        self._on_event = on_event
        self._num_cuts = 0

    def take(self, event: JobEvent) -> None:
        self.seen = event.number
        self._num_cuts = 0
        if self._on_event is not None:
            self._on_event(event)

    def cut(self, error: SteeringClientError) -> None:
        """Count a break; raise it when there were many and nothing came between them."""
        self._num_cuts += 1
        if self._num_cuts >= _MAX_CUTS:
            raise error
