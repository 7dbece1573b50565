"""Which package may import which: `steering` <- `server.engine` <- `server.api`; clients alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from .source_tree import ROOT, Import, Module, imports, modules

_STEERING = {"torch", "numpy", "safetensors"}
_CLIENT = {"httpx", "httpx_retries", "pydantic", "click"}
_STATISTICS = {"scipy", "sklearn"}
_EVALS = {"matplotlib", "numpy", "safetensors", "scipy", "yaml"}  # the clients' extra of that name
_READS_SETTINGS = {"server.app", "server.settings"}  # and the commands
_STEERING_MACHINERY = tuple(
    f"steering.{name}" for name in ("runtime", "operations", "hooks", "layout")
)
_TORCH_FREE = [
    f"server.engine.{name}"
    for name in ("config", "engine", "errors", "outputs", "request", "sampling", "scheduler")
]
_WEB = {"fastapi", "pydantic", "starlette", "uvicorn"}


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _top(found: Import) -> str:
    return found.name.split(".")[0]


def _foreign(module: Module) -> set[str]:
    """Top-level packages outside the standard library that a module imports."""
    return {_top(i) for i in imports(module)} - set(sys.stdlib_module_names) - {_top_of(module)}


def _top_of(module: Module) -> str:
    return module.name.split(".")[0]


def _within(prefix: str) -> list[Module]:
    return [m for m in modules() if _under(m.name, prefix)]


def _reaches(module: Module, *prefixes: str) -> list[str]:
    return [i.name for i in imports(module) if any(_under(i.name, p) for p in prefixes)]


@pytest.mark.parametrize("module", _within("steering"), ids=lambda m: m.name)
def test_steering_needs_only_tensors(module: Module) -> None:
    allowed = set(_STEERING)
    if _under(module.name, "steering.fit") or _under(module.name, "steering.analysis"):
        allowed |= _STATISTICS
    assert _foreign(module) <= allowed
    assert all(i.is_lazy for i in imports(module) if _top(i) in _STATISTICS)


@pytest.mark.parametrize("module", _within("server.engine"), ids=lambda m: m.name)
def test_the_engine_knows_no_web_and_no_store(module: Module) -> None:
    assert not _foreign(module) & _WEB
    others = [n for n in _reaches(module, "server") if not _under(n, "server.engine")]
    assert others == []


@pytest.mark.parametrize("module", _within("server.engine"), ids=lambda m: m.name)
def test_transformers_enters_the_engine_by_three_doors(module: Module) -> None:
    """The model's reader, the tokenizer, and the attention functions that it has registered."""
    if "transformers" in _foreign(module):
        assert module.name.rpartition(".")[2] in {"attention", "pretrained", "tokenizer"}


@pytest.mark.parametrize("module", _within("server.store"), ids=lambda m: m.name)
def test_the_store_knows_values_only(module: Module) -> None:
    assert _reaches(module, "server.engine", "server.api", *_STEERING_MACHINERY) == []


@pytest.mark.parametrize("module", _within("server.api"), ids=lambda m: m.name)
def test_routes_hold_no_tensors_and_no_engine_parts(module: Module) -> None:
    assert "torch" not in _foreign(module)
    assert _reaches(module, "server.engine.core", "server.engine.model_runner") == []
    assert _reaches(module, *_STEERING_MACHINERY) == []


@pytest.mark.parametrize("module", _within("coxswain_client"), ids=lambda m: m.name)
def test_the_client_knows_nothing_of_ours(module: Module) -> None:
    assert _foreign(module) <= _CLIENT | _EVALS
    assert all(i.is_lazy or i.is_typing for i in imports(module) if _top(i) in _EVALS)


@pytest.mark.parametrize("module", modules("server"), ids=lambda m: m.name)
def test_settings_are_read_in_two_places(module: Module) -> None:
    if module.name not in _READS_SETTINGS and not _under(module.name, "server.cli"):
        assert _reaches(module, "server.settings") == []


@pytest.mark.parametrize("module", modules("server"), ids=lambda m: m.name)
def test_no_work_shares_the_default_threads(module: Module) -> None:
    """Every thread belongs to a pool of its own; the commands begin before anything is served."""
    if _under(module.name, "server.cli"):
        return
    names = [n.attr for n in ast.walk(module.tree) if isinstance(n, ast.Attribute)]
    names += [i.name.rpartition(".")[2] for i in imports(module)]
    assert not {"to_thread", "run_in_threadpool", "iterate_in_threadpool"} & set(names)
    assert module.name == "server.jobs.threads" or "run_in_executor" not in names


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.name)
def test_another_package_is_used_by_its_public_names(module: Module) -> None:
    ours = [i.name for i in imports(module) if _top(i) in {"steering", "server"}]
    private = [n for n in ours if any(p.startswith("_") and p != "__init__" for p in n.split("."))]
    assert private == []


def test_no_module_needs_itself() -> None:
    """Neither at import nor behind a function; names under TYPE_CHECKING do not count."""
    known = {m.name for m in modules()}
    graph: dict[str, set[str]] = {}
    for module in modules():
        edges = {i.name for i in imports(module) if not i.is_typing}
        owners = {n if n in known else n.rpartition(".")[0] for n in edges}
        graph[module.name] = (owners & known) - {module.name}
    TopologicalSorter(graph).prepare()


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


def test_steering_loads_no_transformers() -> None:
    loaded = _loaded_by(*(m.name for m in modules("steering")))
    assert not loaded & (_WEB | {"server", "transformers"})


def test_the_store_loads_no_engine() -> None:
    names = [m.name for m in _within("server.store") if ".migrations" not in m.name]
    assert not _loaded_by(*names) & {"fastapi", "transformers"}


def test_the_client_loads_nothing_of_ours() -> None:
    loaded = _loaded_by(*(m.name for m in modules("coxswain_client")))
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
