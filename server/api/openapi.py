"""The OpenAPI document: every operation with its bodies and answers, and an example of each.

FastAPI writes paths and parameters. Schemas are written here, all in one go: of the bodies that
routes read through `RequestBody`, of the answers they declare, and of the events of streams.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final, Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from starlette.responses import HTMLResponse, Response
from starlette.routing import compile_path

from server.auth.permissions import Permission

from .deps import PERMISSION_KEY, PUBLIC, authorize, operation
from .http.listing import Listing
from .request_body import RequestBody
from .route_list import ROUTERS
from .schemas.answers import Failure
from .schemas.chat import ChatChunk
from .schemas.completions import CompletionChunk
from .schemas.jobs import JobEvent

_EVENTS: Final[dict[str, type[BaseModel]]] = {
    "/v1/chat/completions": ChatChunk,
    "/v1/completions": CompletionChunk,
    "/v1/steering/jobs/{job_id}/events": JobEvent,
}
"""What the events of a stream hold, by path."""

_REF: Final = "#/components/schemas/"
_JSON: Final = "application/json"
_STREAM: Final = "text/event-stream"
_KEY: Final = "api_key"
_PAGE: Final = re.compile(r"Page\[_?(\w+)\]")
_DONE: Final = {
    "200": "What was asked for.",
    "201": "What was made; 200 where it was there already.",
    "202": "What waits to be done.",
}

_Mode = Literal["validation", "serialization"]
_Schema = dict[str, Any]

_router = APIRouter(tags=["Operations"])


@_router.get("/openapi.json", openapi_extra=operation(Permission.ADMIN))
async def openapi(request: Request) -> dict[str, Any]:
    """This interface as an OpenAPI document."""
    return document(request.app)


@_router.get("/docs", response_class=HTMLResponse, openapi_extra=operation(Permission.ADMIN))
async def docs(request: Request) -> Response:
    """A page to read the OpenAPI document, and to try it."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=request.app.title)
    page.headers["content-security-policy"] = "frame-ancestors 'none'"  # or clicks could be stolen
    return page


def new_app() -> FastAPI:
    """An application of every route, which works once `app.state.services` is set."""
    app = FastAPI(
        title="Coxswain",
        version=version("coxswain"),
        summary="A language model server that steers every request differently.",
        dependencies=[Depends(authorize)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for included in (*ROUTERS, _router):
        app.include_router(included)
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`; computed once."""
    if app.openapi_schema is None:
        app.openapi_schema = _Writer(app).write()
    return app.openapi_schema


class _Generator(GenerateJsonSchema):
    """Names schemas by their classes, private ones too, and members by nothing but their keys."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(_PAGE.sub(r"\1Page", name)).lstrip("_")

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


class _Writer:
    """Writes the document of one application."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._routes = [
            (compile_path(context.path or context.original_route.path)[1], context.original_route)
            for context in iter_route_contexts(app.routes)
            if isinstance(context.original_route, APIRoute)
        ]
        models: list[tuple[type[BaseModel], _Mode]] = [
            (Failure, "serialization"),
            *((model, "serialization") for model in _EVENTS.values()),
        ]
        for _, route in self._routes:
            models += [(model, "validation") for model in _content(route).values()]
            if _answers_with_model(route):
                models.append((route.response_model, "serialization"))
        self._refs, found = models_json_schema(
            models, ref_template=_REF + "{model}", schema_generator=_Generator
        )
        self._schemas: dict[str, _Schema] = found["$defs"]
        for schema in self._schemas.values():
            schema.pop("title", None)  # it is the name again

    def write(self) -> dict[str, Any]:
        """The whole document."""
        app = self._app
        written = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        written["components"] = {
            "schemas": dict(sorted(self._schemas.items())),
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        }
        for path, route in self._routes:
            for method in sorted(route.methods or ()):
                self._complete(written["paths"][path][method.lower()], path, route)
        return written

    def _complete(self, described: dict[str, Any], path: str, route: APIRoute) -> None:
        if described[PERMISSION_KEY] != PUBLIC:
            described["security"] = [{_KEY: []}]
        parameters = [*described.pop("parameters", []), *_query(route)]
        if parameters:
            described["parameters"] = parameters
        content = _content(route)
        if content:
            forms = {
                kind: self._media(model, "validation", is_form=kind != _JSON)
                for kind, model in content.items()
            }
            described["requestBody"] = {"required": True, "content": forms}
        [(status, answer)] = [
            (code, found) for code, found in described["responses"].items() if code[0] == "2"
        ]
        answer["description"] = _DONE[status]
        sent = answer.setdefault("content", {})
        if _answers_with_model(route):
            sent[_JSON] = self._media(route.response_model, "serialization")
        if path in _EVENTS:
            sent[_STREAM] = self._media(_EVENTS[path], "serialization")
        for media in sent.values():
            media.setdefault("example", _example(media.get("schema", {}), self._schemas))
        failure = self._media(Failure, "serialization")
        described["responses"] = {
            status: answer,
            "default": {"description": "What is wrong.", "content": {_JSON: failure}},
        }

    def _media(self, model: Any, mode: _Mode, *, is_form: bool = False) -> dict[str, Any]:
        schema = self._refs[model, mode]
        media = {"schema": schema, "example": _example(schema, self._schemas)}
        if is_form:
            media["encoding"] = {"metadata": {"contentType": _JSON}}
        return media


def _answers_with_model(route: APIRoute) -> bool:
    model = route.response_model
    return isinstance(model, type) and issubclass(model, BaseModel)


def _content(route: APIRoute) -> dict[str, type[BaseModel]]:
    """Models of the body that a route reads, by media type."""
    for call in _dependencies(route):
        if isinstance(call, RequestBody):
            return dict(call.content)
    return {}


def _query(route: APIRoute) -> Iterator[dict[str, Any]]:
    for call in _dependencies(route):
        if isinstance(call, Listing):
            yield from call.parameters


def _dependencies(route: APIRoute) -> list[object]:
    return [dependency.call for dependency in route.dependant.dependencies]


def _example(schema: _Schema, schemas: dict[str, _Schema]) -> Any:
    """The example of a schema, completed or put together from those of its parts."""
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].removeprefix(_REF)], schemas)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _example(schema[union][0], schemas)
    match schema.get("type"):
        case "object":
            given = schema.get("example", {})
            members: dict[str, _Schema] = schema.get("properties", {})
            missing = [name for name in schema.get("required", ()) if name not in given]
            return given | {name: _example(members[name], schemas) for name in missing}
        case "array":
            return [_example(schema["items"], schemas)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "text"
