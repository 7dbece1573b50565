"""What must not stand in any file: foreign paths and hosts, unpickling, evaluated text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .source_tree import ROOT, Module, imports, modules, refuse, text_files

_MACHINE = re.compile(
    r"(?<![\w.])/(?:"
    + "|".join(["work", "tmp", "root", "home", "opt/pypi", "opt/wheels"])
    + r")\b/?"
)
_REGISTRY = re.compile(
    "|".join(["pypi", "pythonhosted", "download[.]pytorch", "ghcr", "quay", "docker[.]io"])
    + r"[.][a-z]"
)
_OPEN_TASK = re.compile(r"\b(?:FIXME|XXX)\b|\bTODO\b(?!\([a-z]+\): \S)")
_UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
_UNSAFE_CALLS = {"__import__", "eval", "exec", "torch.load", "yaml.load"}
_UNSAFE_KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}
# One sets up what everybody's events are written with, the other listens to a library.
_USES_LOGGING = {"server.logs", "server.engine.loading.pretrained"}
_LOG_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
_EVENT = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
# Where any exception ends one unit of work: it is logged, or carried to who waits for it.
_BORDERS = {
    "server.api.generation.run",
    "server.api.http.middleware",
    "server.api.http.sse",
    "server.engine.async_engine",
    "server.engine.core",
    "server.engine.text.chat_template",
}


def _calls(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _written(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


def _others() -> list[Path]:
    return [path for path in text_files() if path != Path(__file__)]


def test_no_path_of_one_machine() -> None:
    refuse(_written(_MACHINE, _others()))


def test_no_registry_host() -> None:
    refuse(_written(_REGISTRY, _others()))


def test_open_tasks_have_an_owner_and_a_reason() -> None:
    sources = [path for path in _others() if path.suffix == ".py"]
    refuse(_written(_OPEN_TASK, sources))


def _unsafe(module: Module) -> Iterator[str]:
    for imported in imports(module):
        if imported.name.split(".")[0] in _UNSAFE_MODULES:
            yield f"{module.name}:{imported.line}: imports {imported.name}"
    for call in _calls(module.tree):
        called = ast.unparse(call.func)
        if called in _UNSAFE_CALLS:
            yield f"{module.name}:{call.lineno}: calls {called}"
        for keyword in call.keywords:
            if keyword.arg in _UNSAFE_KEYWORDS and ast.unparse(keyword.value) != "False":
                yield f"{module.name}:{call.lineno}: passes {ast.unparse(keyword)}"


def test_nothing_is_unpickled_or_evaluated() -> None:
    refuse([found for module in modules() for found in _unsafe(module)])


def _broad_handlers(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.ExceptHandler)
            and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
            and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        ):
            yield f"{module.name}:{node.lineno}: catches everything, and does not raise again"


def test_broad_handlers_stand_only_at_borders() -> None:
    """Elsewhere `except Exception` may tidy up, and raises again."""
    inner = [module for module in modules() if module.name not in _BORDERS]
    refuse([found for module in inner for found in _broad_handlers(module)])


def test_every_border_is_a_module() -> None:
    assert {module.name for module in modules()} >= _BORDERS


def test_only_the_server_logs_and_by_one_library() -> None:
    """`structlog`, as `server.logs` sets it up; a library of the project's says what it returns."""
    found = []
    for module in modules():
        forbidden = {"logging", "structlog"}
        if module.name.split(".")[0] == "server":
            forbidden = set() if module.name in _USES_LOGGING else {"logging"}
        tops = {imported.name.split(".")[0] for imported in imports(module)}
        found += [f"{module.name}: imports {name}" for name in sorted(tops & forbidden)]
    refuse(found)


def _odd_events(module: Module) -> Iterator[str]:
    for call in _calls(module.tree):
        match call.func:
            case ast.Attribute(value=ast.Name(id="_log"), attr=level):
                events = call.args[0] if len(call.args) == 1 else None
                names = [events.body, events.orelse] if isinstance(events, ast.IfExp) else [events]
                if level not in _LOG_LEVELS or not all(map(_is_event, names)):
                    yield f"{module.name}:{call.lineno}: {ast.unparse(call)[:60]}"


def _is_event(node: ast.expr | None) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return _EVENT.fullmatch(text) is not None
    return False


def test_what_is_logged_is_an_event_with_fields() -> None:
    """`_log.info("job_failed", job_id=...)`: a name to search for, and values to filter by."""
    refuse([found for module in modules("server") for found in _odd_events(module)])
