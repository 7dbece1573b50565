"""Bodies as dependencies: bounded and parsed before the route, and told to the OpenAPI document.

A route declares `asked: Annotated[ChatRequest, Depends(JsonBody(ChatRequest))]`. FastAPI's own
bodies are not used, because they read and parse before anything is bounded: size, time, nesting
and the number of values are checked first here, and only once the key was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel

from steering.errors import SteeringError

from .deps import Services, ServicesDep
from .generation.prompts import check_message_count
from .http.body import Bounds, Strictness, check_media_type, parse_json, read_body
from .http.errors import BodyTimeoutError, BodyTooLargeError, RequestError
from .http.limits import Limits, Place
from .schemas.fields import Wire, read

_T = TypeVar("_T")

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
"""Marks a request that is done once, however often it is sent; see `idempotent`."""


class RequestBody(ABC):
    """A dependency that reads the body of a request."""

    @property
    @abstractmethod
    def content(self) -> Mapping[str, type[BaseModel]]:
        """Models by media type, for the OpenAPI document."""


def _document(limits: Limits) -> Bounds:
    return limits.document


class JsonBody(RequestBody):
    """The request's JSON object as a model."""

    def __init__(
        self,
        model: type[Wire],
        strictness: Strictness = Strictness.STORED,
        bounds: Callable[[Limits], Bounds] = _document,
        take: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        """Describe the body.

        Args:
            model: What it becomes.
            strictness: How exactly it is read.
            bounds: How much of it there may be, from the limits of the server.
            take: Makes something else of an object of the model's form.
        """
        self._model = model
        self._strictness = strictness
        self._bounds = bounds
        self._take = take or partial(read, model)

    @property
    def content(self) -> Mapping[str, type[BaseModel]]:
        """The model, as JSON."""
        return {"application/json": self._model}

    async def __call__(self, request: Request, services: ServicesDep) -> Any:
        """Read the body.

        Raises:
            RequestError: There is none, it is too large, too slow or too deep, or a field of it is
                wrong; the first problem is told.
            PromptTooLongError: It has more messages than are worth a look.
        """
        return await self._read(request, services, lambda: None)

    async def _read(self, request: Request, services: Services, held: Callable[[], None]) -> Any:
        check_media_type(request, "application/json")
        bounds = self._bounds(services.limits)
        data = await read_bounded(request, services, bounds.max_bytes)
        held()
        return await services.offload.run(request, self._parse, data, bounds, services.limits)

    def _parse(self, data: bytearray, bounds: Bounds, limits: Limits) -> Any:
        document = parse_json(data, bounds.max_values, self._strictness)
        if "messages" in self._model.model_fields:
            check_message_count(document, limits.max_messages)
        return self._take(document)


class IdempotentBody(JsonBody):
    """The JSON body of a route that is `idempotent`."""

    async def __call__(self, request: Request, services: ServicesDep) -> Any:
        """Read the body; what is wrong with it is raised later, as `deferred` says."""
        return await deferred(request, super().__call__(request, services))


async def deferred(request: Request, reading: Awaitable[_T]) -> _T | None:
    """What is read, or None where it is refused and the request has a key to be done once.

    The refusal is then left for `idempotent`, which raises it after it has claimed the key: another
    request under a key is a conflict, whatever it asks.
    """
    try:
        return await reading
    except (BodyTooLargeError, BodyTimeoutError):
        raise
    except (RequestError, SteeringError) as error:
        if IDEMPOTENCY_HEADER not in request.headers:
            raise
        request.state.refusal = error
        return None


async def read_bounded(request: Request, services: Services, max_bytes: int) -> bytearray:
    """The bytes of a body, noted for `idempotent` where the request has a key for it.

    Raises:
        RequestError: Too many, or too slow.
    """
    seconds = services.limits.body_timeout_seconds
    data = await read_body(request, max_bytes=max_bytes, timeout_seconds=seconds)
    if IDEMPOTENCY_HEADER in request.headers:
        request.state.sent = data
    return data


class QueuedBody(JsonBody):
    """The JSON body of a request for the engine, which holds a place in its queue once read.

    It is the last parameter of its route, which begins with `with held_place(request):`, so that
    nothing can fail in between: a dependency that yields would cost as much as all others.
    """

    async def __call__(self, request: Request, services: ServicesDep) -> Any:
        """Read the body.

        Raises:
            QueueFullError: The queue was filled while the body came.
            Exception: As `JsonBody`.
        """
        place = request.state.place = services.room.place()
        try:
            return await self._read(request, services, place.hold)
        except BaseException:
            place.leave()
            raise


def held_place(request: Request) -> Place:
    """The place that the body of a request holds."""
    place: Place = request.state.place
    return place
