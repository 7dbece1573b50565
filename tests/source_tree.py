"""The project's own source, parsed: what the meta-tests look at."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = [
    "ROOT",
    "Import",
    "Module",
    "imports",
    "modules",
    "modules_needed",
    "refuse",
    "text_files",
]

ROOT = Path(__file__).parent.parent
_SOURCES = {
    "steering": ROOT,
    "server": ROOT,
    "coxswain_client": ROOT / "clients" / "python",
    "coxswain_evals": ROOT / "clients" / "python",
}
_SKIPPED = {"__pycache__", "build", "dist", "data"}
_TEXT = {"", ".cfg", ".json", ".md", ".mako", ".py", ".toml", ".txt", ".yaml", ".yml", ".jinja"}


@dataclass(frozen=True)
class Module:
    """One source file of a package that is shipped."""

    name: str
    path: Path
    is_package: bool

    @property
    def tree(self) -> ast.Module:
        return _parse(self.path)

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """An absolute name imported by a module.

    `name` may be a module or a name in one. `is_lazy` inside a function, `is_typing` under
    TYPE_CHECKING.
    """

    name: str
    line: int
    is_lazy: bool
    is_typing: bool


def refuse(offenders: Iterable[str]) -> None:
    """Fail, with every offender in the message, if there is any."""
    found = sorted(offenders)
    assert not found, "\n".join(["", *found])


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    """Every module of the packages named, or of all that are shipped."""
    found = []
    for package in packages or tuple(_SOURCES):
        base = _SOURCES[package]
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found.append(Module(name, path, is_package))
    return tuple(found)


def imports(module: Module) -> Iterator[Import]:
    """What a module imports, with relative imports resolved; `from a import b` gives `a.b`."""
    yield from _walk(module, module.tree, is_lazy=False, is_typing=False)


def modules_needed(module: Module) -> set[str]:
    """The project's other modules that it imports, for types alone or behind a function too."""
    known = {m.name for m in modules()}
    found = set()
    for imported in imports(module):
        # What is imported may be a module, or a name in one.
        owner = imported.name if imported.name in known else imported.name.rpartition(".")[0]
        found.add(owner)
    return (found & known) - {module.name}


def _walk(module: Module, node: ast.AST, *, is_lazy: bool, is_typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        lazy = is_lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = is_typing or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        )
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, lazy, typing)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parent = module.package.split(".")
                above = parent[: len(parent) - child.level + 1]
                base = ".".join([*above, *filter(None, [child.module])])
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, lazy, typing)
        else:
            yield from _walk(module, child, is_lazy=lazy, is_typing=typing)


@cache
def text_files() -> tuple[Path, ...]:
    """Every file of the project that a person may read."""
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if not _is_skipped(n)]
        # In a linked worktree `.git` is a file, and says where on this machine the rest of it is.
        found += [Path(folder, f) for f in files if Path(f).suffix in _TEXT and f != ".git"]
    return tuple(sorted(found))


def _is_skipped(folder: str) -> bool:
    return folder in _SKIPPED or (folder.startswith(".") and folder != ".ci")
