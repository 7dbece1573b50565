"""The OpenAPI document, with the bodies that routes read by themselves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from server.auth.permissions import KeyScope

from .deps import operation
from .schemas.analysis import ScoreBody, TraceBody
from .schemas.chat import ChatRequest
from .schemas.completions import CompletionRequest
from .schemas.jobs import JobRequest
from .schemas.registry import AliasTarget, KeyRequest, ProfileDraft
from .schemas.tokenize import DetokenizeRequest, TokenizeRequest

__all__ = ["document", "router"]

router = APIRouter(tags=["Operations"])

_BODIES = (
    AliasTarget,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    JobRequest,
    KeyRequest,
    ProfileDraft,
    ScoreBody,
    TokenizeRequest,
    TraceBody,
)


@router.get("/openapi.json", openapi_extra=operation(KeyScope.ADMIN))
async def openapi(request: Request) -> dict[str, Any]:
    """This interface as an OpenAPI document."""
    return document(request.app)


@router.get("/docs", openapi_extra=operation(KeyScope.ADMIN))
async def docs(request: Request) -> Response:
    """A page to read the OpenAPI document, and to try it."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=request.app.title)
    page.headers["content-security-policy"] = "frame-ancestors 'none'"  # or clicks could be stolen
    return page


def document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`; computed once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        _, definitions = models_json_schema(
            [(model, "validation") for model in _BODIES],
            ref_template="#/components/schemas/{model}",
        )
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.update(definitions["$defs"])
        app.openapi_schema = schema
    return app.openapi_schema
