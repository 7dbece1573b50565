"""Which package may import which: `steering` <- `server.engine` <- `server.api`; clients alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter

from .source_tree import ROOT, Import, Module, imports, modules, modules_needed, refuse

_STEERING = {"torch", "numpy", "pydantic", "pydantic_core", "safetensors"}
_CLIENT = {"httpx", "httpx_retries", "httpx_sse", "pydantic", "typer"}
_STATISTICS = {"scipy", "sklearn"}
_EVALS = {"matplotlib", "numpy", "safetensors", "scipy", "yaml"}  # the extra of that name
_READS_SETTINGS = {"server.app", "server.settings"}  # and the commands
_RUNS_THREADS = "server.jobs.threads"
_STEERING_MACHINERY = tuple(
    f"steering.{name}" for name in ("runtime", "operations", "hooks", "layout")
)
_TORCH_FREE = [
    f"server.engine.{name}"
    for name in ("engine", "errors", "outputs", "request", "sampling", "scheduler")
]
# From the ground up: a floor imports nothing of the floors above it.
_FLOORS = (
    "steering",
    "server.engine",
    "server.models",
    "server.auth",
    "server.store",
    "server.resolver",
    "server.registry",
    "server.measure",
    "server.jobs",
    "server.bake",
    "server.api",
    "server.serve",
    "server.app",
    "server.cli",
)
# The rooms of the API, in the same order.
_API_FLOORS = tuple(
    f"server.api.{name}"
    for name in (
        *("http", "schemas", "deps", "generation", "request_body", "idempotency"),
        *("routes", "route_list", "openapi"),
    )
)
_WEB = {"fastapi", "starlette", "uvicorn"}


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _top(found: Import) -> str:
    return found.name.split(".")[0]


def _within(prefix: str) -> list[Module]:
    return [m for m in modules() if _under(m.name, prefix)]


def _offences(scanned: Iterable[Module], is_allowed: Callable[[Import], bool]) -> list[str]:
    """The imports of these modules that are not allowed, each as `module: name`."""
    return [
        f"{module.name}: {found.name}"
        for module in scanned
        for found in imports(module)
        if not is_allowed(found)
    ]


def _reaches(found: Import, *prefixes: str) -> bool:
    return any(_under(found.name, prefix) for prefix in prefixes)


def _is_ours_or(found: Import, package: str, allowed: set[str]) -> bool:
    """Whether it is of the package itself, the standard library or one of the names allowed."""
    return _top(found) in {package, *allowed} or _top(found) in sys.stdlib_module_names


def test_steering_needs_only_tensors() -> None:
    statistical = [m for p in ("steering.fit", "steering.analysis") for m in _within(p)]
    others = [m for m in _within("steering") if m not in statistical]
    refuse(_offences(others, lambda i: _is_ours_or(i, "steering", _STEERING)))
    with_statistics = _STEERING | _STATISTICS
    refuse(_offences(statistical, lambda i: _is_ours_or(i, "steering", with_statistics)))
    refuse(_offences(statistical, lambda i: i.is_lazy or _top(i) not in _STATISTICS))


def test_the_engine_knows_no_web_and_no_store() -> None:
    engine = _within("server.engine")
    refuse(_offences(engine, lambda i: _top(i) not in _WEB))
    refuse(_offences(engine, lambda i: _top(i) != "server" or _reaches(i, "server.engine")))


def test_transformers_enters_the_engine_by_six_doors() -> None:
    """Readers of configurations, models, sizes and GGUF files; the tokenizer; its attention."""
    doors = {"architecture", "attention", "convert", "pretrained", "sizing", "tokenizer"}
    others = [m for m in _within("server.engine") if m.name.rpartition(".")[2] not in doors]
    refuse(_offences(others, lambda i: _top(i) != "transformers"))


def test_the_store_knows_values_only() -> None:
    others = ("server.engine", "server.api", *_STEERING_MACHINERY)
    refuse(_offences(_within("server.store"), lambda i: not _reaches(i, *others)))


def test_routes_hold_no_tensors_and_no_engine_parts() -> None:
    parts = ("torch", "server.engine.core", "server.engine.model_runner", *_STEERING_MACHINERY)
    refuse(_offences(_within("server.api"), lambda i: not _reaches(i, *parts)))


def test_measuring_knows_neither_who_asks_nor_what_for() -> None:
    """Routes, jobs, bake and the lab measure by the same means; jobs know no routes."""
    askers = ("server.api", "server.jobs", "server.bake", "lab")
    refuse(_offences(_within("server.measure"), lambda i: not _reaches(i, *askers)))
    refuse(_offences(_within("server.jobs"), lambda i: not _reaches(i, "server.api")))


def test_the_client_knows_nothing_of_ours() -> None:
    """Save the evaluations, which commands import when they are asked for them."""
    commands = _within("coxswain_client.cli")
    others = [m for m in _within("coxswain_client") if m not in commands]
    refuse(_offences(others, lambda i: _is_ours_or(i, "coxswain_client", _CLIENT)))
    allowed = _CLIENT | {"coxswain_evals"}
    refuse(_offences(commands, lambda i: _is_ours_or(i, "coxswain_client", allowed)))
    refuse(_offences(commands, lambda i: i.is_lazy or _top(i) != "coxswain_evals"))


def test_evaluations_know_the_client_alone() -> None:
    evals = _within("coxswain_evals")
    allowed = _CLIENT | _EVALS | {"coxswain_client"}
    refuse(_offences(evals, lambda i: _is_ours_or(i, "coxswain_evals", allowed)))
    refuse(_offences(evals, lambda i: i.is_lazy or i.is_typing or _top(i) not in _EVALS))
    refuse(_offences(evals, lambda i: not _reaches(i, "coxswain_client.cli")))


def _serving() -> list[Module]:
    """The server without its commands, which begin before anything is served."""
    return [m for m in modules("server") if not _under(m.name, "server.cli")]


def test_settings_are_read_in_two_places() -> None:
    others = [m for m in _serving() if m.name not in _READS_SETTINGS]
    refuse(_offences(others, lambda i: not _reaches(i, "server.settings")))


def test_no_work_shares_the_default_threads() -> None:
    """Every thread belongs to a pool of its own."""
    shared = {"to_thread", "run_in_threadpool", "iterate_in_threadpool"}
    found = []
    for module in _serving():
        names = {n.attr for n in ast.walk(module.tree) if isinstance(n, ast.Attribute)}
        names |= {i.name.rpartition(".")[2] for i in imports(module)}
        forbidden = shared if module.name == _RUNS_THREADS else {*shared, "run_in_executor"}
        found += [f"{module.name}: {name}" for name in sorted(names & forbidden)]
    refuse(found)


def test_another_package_is_used_by_its_public_names() -> None:
    def is_private(part: str) -> bool:
        return part.startswith("_") and part != "__init__"

    def is_public(found: Import) -> bool:
        ours = _top(found) in {"steering", "server"}
        return not ours or not any(is_private(part) for part in found.name.split("."))

    refuse(_offences(modules(), is_public))


def _check_no_circle(graph: dict[str, set[str]]) -> None:
    """Raises CycleError, which names the circle."""
    TopologicalSorter(graph).prepare()


def test_no_module_needs_itself() -> None:
    """Neither at import, nor behind a function, nor for types alone."""
    _check_no_circle({m.name: modules_needed(m) for m in modules()})


def test_no_folder_needs_itself() -> None:
    """What stands in one folder, files and folders alike, is in an order too."""
    graph: dict[str, set[str]] = {}
    for module in modules():
        for needed in modules_needed(module):
            for above, below in _siblings(module.name, needed):
                graph.setdefault(above, set()).add(below)
    _check_no_circle(graph)


def _siblings(name: str, needed: str) -> list[tuple[str, str]]:
    """The two names in the folder where their ways part; none if one of them is that folder."""
    ours, theirs = name.split("."), needed.split(".")
    for depth, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        if our != their:
            return [(".".join(ours[: depth + 1]), ".".join(theirs[: depth + 1]))] if depth else []
    return []


def _climbing(floors: tuple[str, ...]) -> list[str]:
    """The imports of something on a floor above, each as `module: name`."""
    assert all(_within(name) for name in floors), "a floor that is not there"
    return [
        f"{module.name}: {found.name}"
        for floor, name in enumerate(floors)
        for module in _within(name)
        for found in imports(module)
        if _reaches(found, *floors[floor + 1 :])
    ]


def test_no_arrow_points_up() -> None:
    refuse(_climbing(_FLOORS))


def test_no_arrow_in_the_api_points_up() -> None:
    refuse(_climbing(_API_FLOORS))


def _loaded_by(*names: str) -> set[str]:
    """Top-level packages in memory after importing modules in a fresh interpreter."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {list(names)!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    return set(json.loads(_run(code).splitlines()[-1]))


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scheduling_loads_no_torch() -> None:
    loaded = _loaded_by(*_TORCH_FREE)
    assert not loaded & (_WEB | {"torch", "transformers"})


def test_permissions_load_no_torch() -> None:
    names = [m.name for m in _within("server.auth")]
    assert "torch" not in _loaded_by(*names)


def test_steering_loads_no_transformers() -> None:
    loaded = _loaded_by(*(m.name for m in modules("steering")))
    assert not loaded & (_WEB | {"server", "transformers"})


def test_the_store_loads_no_engine() -> None:
    names = [m.name for m in _within("server.store") if ".migrations" not in m.name]
    assert not _loaded_by(*names) & {"fastapi", "transformers"}


def test_the_client_loads_nothing_of_ours() -> None:
    loaded = _loaded_by(*(m.name for m in modules("coxswain_client", "coxswain_evals")))
    assert not loaded & {"server", "steering", "torch"}


def test_help_is_quick() -> None:
    """`python -m server --help` loads no torch."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['coxswain', '--help']\n"
        "try: runpy.run_module('server', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    assert "serve" in _run(code)


def test_importing_starts_nothing() -> None:
    """No thread, no file written, no change of the environment."""
    names = [m.name for m in modules() if not m.name.endswith(("__main__", ".env"))]
    names = [n for n in names if ".migrations" not in n]
    # Needs Triton, which comes with torch's builds for CUDA.
    names.remove("server.engine.attention.paged_decode_kernel")
    code = (
        "import importlib, os, sys, threading\n"
        "import torch, transformers, numpy\n"
        "own = lambda: {n: v for n, v in os.environ.items() if not n.startswith('TORCH')}\n"
        "before, written = own(), []\n"
        "def audit(event, args):\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        if '__pycache__' not in str(args[0]): written.append(str(args[0]))\n"
        "    if event in ('socket.bind', 'sqlite3.connect', 'subprocess.Popen'):\n"
        "        written.append(event)\n"
        "sys.addaudithook(audit)\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert not written, written\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert own() == before\n"
    )
    _run(code)
