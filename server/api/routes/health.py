"""`/health`, `/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from server.api.deps import PUBLIC, ServicesDep, operation
from server.api.http.errors import NotReadyError
from server.api.schemas.operations import Health
from server.auth.permissions import Permission

router = APIRouter(tags=["Operations"])


@router.get("/health/live", openapi_extra=operation(PUBLIC))
async def live(services: ServicesDep) -> Health:
    """Whether the process should go on: 503 when the engine stopped or hangs in a step."""
    reason = services.lifecycle.why_not_live()
    if reason is not None:
        raise NotReadyError(f"not live: {reason}")
    return Health(status="live")


@router.get("/health", openapi_extra=operation(PUBLIC))
@router.get("/health/ready", openapi_extra=operation(PUBLIC))
async def ready(services: ServicesDep) -> Health:
    """Whether requests should come here: 503 while shutting down, not live, or without a store."""
    reason = services.lifecycle.why_not_ready() or await services.store_health.why_not_ready()
    if reason is not None:
        raise NotReadyError(f"not ready: {reason}")
    return Health(status="ready")


@router.get("/metrics", response_class=PlainTextResponse, openapi_extra=operation(Permission.READ))
async def metrics(services: ServicesDep) -> Response:
    """Every metric in Prometheus' text format."""
    return Response(
        services.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
