"""Write docs/reference.md and docs/openapi.json from the code.

The reference lists settings, commands, routes, errors and metrics.

python -m tools.reference
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from coxswain_client.cli import app as coxctl
from server.api import openapi
from server.api.http import error_table as errors
from server.api.http.errors import RequestError
from server.api.route_list import list_routes
from server.auth.permissions import AuthError
from server.cli import app as coxswain
from server.engine.errors import EngineError
from server.engine.outputs import EngineStats, StepSeconds
from server.metrics import Metrics
from server.pools import PoolFullError
from server.resolver.errors import InvalidSteeringError
from server.settings import ENV_PREFIX, Settings
from server.store.errors import StoreError
from steering.errors import SteeringError

_DOCS = Path(__file__).parent.parent / "docs"
PATH = _DOCS / "reference.md"
OPENAPI_PATH = _DOCS / "openapi.json"
_HEADER = """# Reference

<!-- Written by `make reference` from the code; a test fails where it is out of date. -->

"""
_TREES = (
    *(RequestError, AuthError, InvalidSteeringError, SteeringError, EngineError, StoreError),
    PoolFullError,
)
_IDLE = EngineStats(
    0, 0, 0.0, 0, 0, 0, 0, 0, 0, StepSeconds(), {}, 0.0, is_healthy=True, is_draining=False
)

Row = Sequence[str]


def settings() -> Iterator[Row]:
    """Variable, default and meaning of every setting."""
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = f"`{default}`" if default not in (None, "", []) else "none"
        if isinstance(default, Path) and default.is_absolute():
            shown = "the embedded model"
        yield f"`{ENV_PREFIX}{name.upper()}`", shown, field.description or ""


def commands() -> Iterator[Row]:
    """Usage and meaning of every command."""
    yield from _commands("coxswain", typer.main.get_command(coxswain))
    yield from _commands("coxctl", typer.main.get_command(coxctl))


def _commands(name: str, command: Any) -> Iterator[Row]:  # typer has a click of its own
    inner = getattr(command, "commands", None)
    if inner:
        for child in sorted(inner):
            yield from _commands(f"{name} {child}", inner[child])
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, *((p.name or "").upper() for p in arguments)])
    options = [p.opts[0] for p in command.params if p.param_type_name == "option"]
    yield f"`{usage}`", _summary(command.help), " ".join(f"`{option}`" for option in options)


def routes() -> Iterator[Row]:
    """Method, path, permission and meaning of every route."""
    for route in list_routes(openapi.new_app()):
        yield f"`{route.method} {route.path}`", f"`{route.permission}`", _summary(route.summary)


def error_codes() -> Iterator[Row]:
    """Status, code, type and meaning of every error."""
    rows = {_error(kind) for tree in _TREES for kind in _family(tree)}
    rows.add((422, "steering_nonfinite", "invalid_request_error", "Steering drove it to NaN."))
    for status, code, kind, meaning in sorted(rows):
        yield str(status), f"`{code}`", f"`{kind}`", meaning


def _family(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def _error(kind: type[Any]) -> tuple[int, str, str, str]:
    row = next(row for row in errors.ERROR_TABLE if issubclass(kind, row.kind))
    return row.status, kind.code, row.type, _summary(kind.__doc__)


def metrics() -> Iterator[Row]:
    """Name, type and meaning of every metric."""
    text = Metrics(lambda: _IDLE, is_auth_disabled=True).render().decode()
    lines = [line.split(" ", 3) for line in text.splitlines() if line.startswith("# ")]
    meanings = {name: meaning for _, kind, name, meaning in lines if kind == "HELP"}
    types = {name: value for _, kind, name, value in lines if kind == "TYPE"}
    for name in sorted(types):
        if not name.endswith("_created"):
            yield f"`{name}`", types[name], meanings[name]


def _summary(text: str | None) -> str:
    """The first paragraph of a docstring as one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def render() -> str:
    """The whole page."""
    sections = [
        (
            "Settings",
            "From the environment. The options of `coxswain serve` win over them.",
            ("Variable", "Default", "Meaning"),
            settings(),
        ),
        (
            "Commands",
            "`coxswain` runs the server; `coxctl` talks to one.",
            ("Command", "Does", "Options"),
            commands(),
        ),
        (
            "Routes",
            "The permission is what an API key must hold; `public` needs no key.",
            ("Route", "Permission", "Does"),
            routes(),
        ),
        (
            "Errors",
            'Every failure has the body `{"error": {"message", "type", "param", "code"}}` and the '
            "header `x-request-id`. Faults of steering have the status given on the OpenAI routes "
            "and 422 instead of 400 under `/v1/steering` and `/v1/admin`.",
            ("Status", "Code", "Type", "Meaning"),
            error_codes(),
        ),
        (
            "Metrics",
            "At `/metrics`, in Prometheus' text format.",
            ("Metric", "Type", "Meaning"),
            metrics(),
        ),
    ]
    return _HEADER + "\n".join(_section(*section) for section in sections)


def _section(title: str, text: str, columns: Row, rows: Iterator[Row]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    table = "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)
    return f"## {title}\n\n{text}\n\n{table}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def render_openapi() -> str:
    """The OpenAPI document of every route, as the server answers it at `/openapi.json`."""
    written = openapi.document(openapi.new_app())
    return json.dumps(written, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())
    OPENAPI_PATH.write_text(render_openapi())
