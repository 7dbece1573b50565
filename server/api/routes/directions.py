"""`/v1/steering/directions`: upload, list, read, archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.http.body import Document, check_media_type, parse_json, read_body
from server.api.http.errors import (
    BodyTooLargeError,
    InvalidParameterError,
    MalformedBodyError,
    MissingParameterError,
    RequestError,
    UnknownParameterError,
)
from server.api.http.limits import Limits
from server.api.http.listing import if_match, paging, reference
from server.api.idempotency import idempotent
from server.api.schemas import records
from server.auth.permissions import KeyScope
from server.registry.upload import DirectionUpload
from server.store import Actor
from steering.directions import DirectionKind
from steering.requirements import scope_of
from steering.sites import parse_site

__all__ = ["router"]

router = APIRouter(prefix="/v1/steering/directions", tags=["Directions"])

_MULTIPART: Final = "multipart/form-data"


@router.post("", status_code=201, openapi_extra=operation(KeyScope.ADMIN))
@idempotent()
async def create_direction(request: Request, services: ServicesDep, actor: ActorDep) -> Response:
    """Store a direction: JSON with tensors, or multipart with a file. The same bytes: 200."""
    media_type = check_media_type(request, "application/json", _MULTIPART)
    upload = await (
        _from_form(request, services, actor)
        if media_type == _MULTIPART
        else _from_json(request, services, actor)
    )
    services.metrics.store_writable.set(1)
    record = upload.saved.record
    return JSONResponse(
        {**records.direction(record), "warnings": list(upload.warnings)},
        status_code=201 if upload.saved.created else 200,
        headers={"etag": f'"{record.etag}"'},
    )


@router.get("", openapi_extra=operation(KeyScope.READ))
async def list_directions(request: Request, services: ServicesDep) -> dict[str, Any]:
    """The newest version of each direction, by name."""
    asked = paging(request, ("kind", "site", "tag"))
    kind = asked.filters.get("kind")
    if kind is not None and kind not in list(DirectionKind):
        raise InvalidParameterError(
            f"kind: expected one of {', '.join(DirectionKind)}", param="kind"
        )
    site = asked.filters.get("site")
    found = await services.pools.reads.run(
        services.store.directions.list,
        asked.cursor,
        asked.limit,
        kind=None if kind is None else DirectionKind(kind),
        site=None if site is None else parse_site(site),
        tag=asked.filters.get("tag"),
    )
    return records.page(found, records.direction)


@router.get("/{name}", openapi_extra=operation(KeyScope.READ))
async def get_direction(name: str, services: ServicesDep) -> Response:
    """One version: `name` for the newest, `name@2` for one, archived or not."""
    wanted = reference(name)
    record = await services.pools.reads.run(
        services.store.directions.get,
        wanted.name,
        wanted.version,
        include_archived=wanted.version is not None,
    )
    return JSONResponse(records.direction(record), headers={"etag": f'"{record.etag}"'})


@router.get("/{name}/versions", openapi_extra=operation(KeyScope.READ))
async def list_direction_versions(
    name: str, request: Request, services: ServicesDep
) -> dict[str, Any]:
    """Every version of a direction, newest first."""
    asked = paging(request)
    found = await services.pools.reads.run(
        services.store.directions.versions,
        reference(name).name,
        asked.cursor,
        asked.limit,
        include_archived=True,
    )
    return records.page(found, records.direction)


@router.get("/{name}/tensors", openapi_extra=operation(KeyScope.READ))
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
    needed = frozenset(map(scope_of, record.requires))
    caller.require(*needed, param="name")
    if KeyScope.RESTRICTED in needed:
        await services.resolver.audit_direction(record.reference, actor)
    return Response(
        await services.pools.bulk.run(store.read, record),
        media_type="application/octet-stream",
        headers={
            "content-disposition": f'attachment; filename="{record.reference}.safetensors"',
            "etag": f'"{record.sha256}"',
        },
    )


@router.delete("/{name}", openapi_extra=operation(KeyScope.ADMIN))
async def archive_direction(
    name: str, request: Request, services: ServicesDep, actor: ActorDep
) -> dict[str, Any]:
    """Take a version, or all, out of use; 409 with the profiles that use it."""
    wanted = reference(name)
    archived = await services.pools.writes.run(
        services.store.directions.archive,
        wanted.name,
        wanted.version,
        by=actor,
        expected=if_match(request),
    )
    return {
        "object": "steering.direction.archived",
        "name": wanted.name,
        "versions": [record.version for record in archived],
    }


async def _from_json(request: Request, services: Services, actor: Actor) -> DirectionUpload:
    bounds = services.limits.upload
    data = await read_body(
        request,
        max_bytes=bounds.max_bytes,
        timeout_seconds=services.limits.body_timeout_seconds,
    )
    document = await services.desk.run(
        request, parse_json, data, bounds.max_values, Document.STORED
    )
    return await services.pools.bulk.run(
        services.uploader.from_document, document, by=actor, expected=if_match(request)
    )


async def _from_form(request: Request, services: Services, actor: Actor) -> DirectionUpload:
    body = await read_body(
        request,
        max_bytes=services.limits.max_form_bytes,
        timeout_seconds=services.limits.body_timeout_seconds,
    )
    data, metadata = await services.desk.run_apart(
        _read_form, request.headers, body, services.limits
    )
    return await services.pools.bulk.run(
        services.uploader.from_file, data, metadata, by=actor, expected=if_match(request)
    )


def _read_form(headers: Headers, body: bytearray, limits: Limits) -> tuple[bytes, dict[str, Any]]:
    """The parts `file` and `metadata` of a form; in a thread, which has no event loop."""
    return asyncio.run(_parse_form(headers, body, limits))


async def _parse_form(
    headers: Headers, body: bytearray, limits: Limits
) -> tuple[bytes, dict[str, Any]]:
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


async def _parts(form: FormData, limits: Limits) -> tuple[bytes, dict[str, Any]]:
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
        return data, parse_json(metadata.encode(), max_values, Document.STORED)
    except RequestError as error:
        raise error.under("metadata") from None
