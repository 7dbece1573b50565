"""`/v1/admin/audit`: who changed what, and who used what is restricted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from server.api.deps import ServicesDep, operation
from server.api.http.listing import paging
from server.api.schemas import records
from server.auth.permissions import KeyScope

__all__ = ["router"]

router = APIRouter(prefix="/v1/admin/audit", tags=["Audit"])


@router.get("", openapi_extra=operation(KeyScope.ADMIN))
async def list_events(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Events, newest first; `action` keeps one kind."""
    asked = paging(request, ("action",))
    found = await services.pools.reads.run(
        services.store.audit.list,
        asked.cursor,
        asked.limit,
        action=asked.filters.get("action"),
    )
    return records.page(found, records.audit_event)
