"""`/v1/steering/directions`: upload, list, read, archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.http.body import Strictness, check_media_type, parse_json
from server.api.http.errors import (
    BodyTooLargeError,
    MalformedBodyError,
    MissingParameterError,
    RequestError,
    UnknownParameterError,
)
from server.api.http.limits import Limits
from server.api.http.listing import IF_MATCH, Listing, Paging, if_match, reference, reply
from server.api.idempotency import IDEMPOTENCY_KEY, idempotent
from server.api.request_body import RequestBody, deferred, read_bounded
from server.api.schemas.answers import Page
from server.api.schemas.registry import (
    Direction,
    DirectionForm,
    DirectionsArchived,
    DirectionUploadBody,
    StoredDirection,
)
from server.auth.permissions import Permission
from steering.directions import DirectionKind
from steering.requirements import permission_of
from steering.sites import Site

router = APIRouter(prefix="/v1/steering/directions", tags=["Directions"])

_MULTIPART: Final = "multipart/form-data"

_EveryVersion = Annotated[Paging, Depends(Listing())]


class _TensorFile(Response):
    media_type = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class _SentDirection:
    """What an upload says of a direction, with its tensors or beside the file that has them."""

    document: dict[str, Any]
    file: bytes | None = None


class _DirectionBody(RequestBody):
    """JSON with tensors, or a form of a file and its metadata."""

    @property
    def content(self) -> Mapping[str, type[BaseModel]]:
        """The models of both forms."""
        return {"application/json": DirectionUploadBody, _MULTIPART: DirectionForm}

    async def __call__(self, request: Request, services: ServicesDep) -> _SentDirection | None:
        """Read either form, as `deferred` does.

        Raises:
            RequestError: It is of another type, too large or too slow, or malformed.
        """
        return await deferred(request, self._read(request, services))

    async def _read(self, request: Request, services: Services) -> _SentDirection:
        limits = services.limits
        if check_media_type(request, "application/json", _MULTIPART) == _MULTIPART:
            body = await read_bounded(request, services, limits.max_form_bytes)
            return await services.offload.in_thread(_read_form, request.headers, body, limits)
        data = await read_bounded(request, services, limits.upload.max_bytes)
        parse = partial(parse_json, data, limits.upload.max_values, Strictness.STORED)
        return _SentDirection(await services.offload.run(request, parse))


@router.post(
    "",
    status_code=201,
    response_model=StoredDirection,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY, IF_MATCH),
)
@idempotent()
async def create_direction(
    sent: Annotated[_SentDirection, Depends(_DirectionBody())],
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
) -> Response:
    """Store a direction: JSON with tensors, or multipart with a file. The same bytes: 200."""
    uploader, expected = services.uploader, if_match(request)
    if sent.file is None:
        take = partial(uploader.from_document, sent.document)
    else:
        take = partial(uploader.from_file, sent.file, sent.document)
    upload = await services.pools.bulk.run(partial(take, by=actor, expected=expected))
    services.metrics.store_writable.set(1)
    record = upload.saved.record
    status = 201 if upload.saved.created else 200
    stored = StoredDirection.of(record, warnings=upload.warnings)
    return reply(stored, status, etag=record.etag)


@router.get("", openapi_extra=operation(Permission.READ))
async def list_directions(
    asked: Annotated[Paging, Depends(Listing(kind=DirectionKind, site=Site, tag=None))],
    services: ServicesDep,
) -> Page[Direction]:
    """The newest version of each direction, by name."""
    found = await services.pools.reads.run(
        services.store.directions.list,
        asked.cursor,
        asked.limit,
        **asked.filters,
    )
    return Page[Direction].listing(found, Direction.of)


@router.get("/{name}", response_model=Direction, openapi_extra=operation(Permission.READ))
async def get_direction(name: str, services: ServicesDep) -> Response:
    """One version: `name` for the newest, `name@2` for one, archived or not."""
    wanted = reference(name)
    record = await services.pools.reads.run(
        services.store.directions.get,
        wanted.name,
        wanted.version,
        include_archived=wanted.version is not None,
    )
    return reply(Direction.of(record), etag=record.etag)


@router.get("/{name}/versions", openapi_extra=operation(Permission.READ))
async def list_direction_versions(
    name: str, asked: _EveryVersion, services: ServicesDep
) -> Page[Direction]:
    """Every version of a direction, newest first."""
    found = await services.pools.reads.run(
        services.store.directions.versions,
        reference(name).name,
        asked.cursor,
        asked.limit,
        include_archived=True,
    )
    return Page[Direction].listing(found, Direction.of)


@router.get(
    "/{name}/tensors",
    response_class=_TensorFile,
    openapi_extra=operation(Permission.READ),
)
async def get_direction_tensors(
    name: str, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """The tensors as a safetensors file, byte for byte as stored and verified on the way.

    Whoever has the tensors can use them in any way, so the key must hold every permission that any
    use of the direction asks for.
    """
    wanted = reference(name)
    store = services.store.directions
    record = await services.pools.reads.run(
        store.get, wanted.name, wanted.version, include_archived=wanted.version is not None
    )
    needed = frozenset(map(permission_of, record.requires))
    caller.require(*needed, param="name")
    if Permission.RESTRICTED in needed:
        await services.resolver.audit_direction(record.reference, actor)
    return _TensorFile(
        await services.pools.bulk.run(store.read, record),
        headers={
            "content-disposition": f'attachment; filename="{record.reference}.safetensors"',
            "etag": f'"{record.sha256}"',
        },
    )


@router.delete("/{name}", openapi_extra=operation(Permission.ADMIN, IF_MATCH))
async def archive_direction(
    name: str, request: Request, services: ServicesDep, actor: ActorDep
) -> DirectionsArchived:
    """Take a version, or all, out of use; 409 with the profiles that use it."""
    wanted = reference(name)
    archived = await services.pools.writes.run(
        services.store.directions.archive,
        wanted.name,
        wanted.version,
        by=actor,
        expected=if_match(request),
    )
    return DirectionsArchived(name=wanted.name, versions=[record.version for record in archived])


def _read_form(headers: Headers, body: bytearray, limits: Limits) -> _SentDirection:
    """The parts `file` and `metadata` of a form; in a thread, which has no event loop."""
    return asyncio.run(_parse_form(headers, body, limits))


async def _parse_form(headers: Headers, body: bytearray, limits: Limits) -> _SentDirection:
    async def stream() -> AsyncIterator[bytes]:
        yield bytes(body)

    parser = MultiPartParser(
        headers,
        stream(),  # type: ignore[arg-type]
        max_files=1,
        max_fields=2,
        max_part_size=limits.max_form_bytes,
    )
    parser.spool_max_size = len(body) + 1  # it is in memory already: no file, no thread for one
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise MalformedBodyError("the body is not multipart/form-data") from error
    try:
        return await _parts(form, limits)
    finally:
        await form.close()


async def _parts(form: FormData, limits: Limits) -> _SentDirection:
    for name in form:
        if name not in ("file", "metadata"):
            raise UnknownParameterError(
                f"{name[:64]} is not a part of this form; expected file and metadata",
                param=name[:64],
            )
    file, metadata = form.get("file"), form.get("metadata")
    if not isinstance(file, UploadFile):
        raise MissingParameterError("file is missing; send it as a file part", param="file")
    if not isinstance(metadata, str):
        raise MissingParameterError(
            "metadata is missing; send a JSON object in a text part", param="metadata"
        )
    data = await file.read()
    if len(data) > limits.max_upload_bytes:
        raise BodyTooLargeError(
            f"file has {len(data)} bytes; expected at most {limits.max_upload_bytes}", param="file"
        )
    try:
        max_values = limits.document.max_values
        return _SentDirection(parse_json(metadata.encode(), max_values, Strictness.STORED), data)
    except RequestError as error:
        raise error.under("metadata") from None
