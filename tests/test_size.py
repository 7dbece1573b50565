"""Files, functions and folders stay small enough to read at once, and none is split for nothing."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .source_tree import ROOT, Module, modules, modules_needed, refuse, text_files

_MAX_LINES = 500
_MAX_FUNCTION_LINES = 40
_MAX_FOLDER_FILES = 15
# A file below this, with one importer beside it, is a door to open for little behind it.
_SMALL_LINES = 61

_MAX_HEADER_SHARE = 0.14

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}
# Small files with a single importer beside them that stay, as a reader looks for their noun.
_NOUNS = {
    "server.engine.scheduler.waiting_queue": "who asks where requests wait looks for it",
    "server.store.bounded_connection": "imports psycopg, which only a server on PostgreSQL has",
}


def _length(path: Path) -> int:
    return len(path.read_text().splitlines())


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the statements, without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_no_file_is_longer_than_the_cap() -> None:
    lengths = {p.relative_to(ROOT): _length(p) for p in text_files() if p.suffix == ".py"}
    assert {str(p): n for p, n in lengths.items() if n > _MAX_LINES} == {}


def _long_functions(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _body_lines(node)
            if lines > _MAX_FUNCTION_LINES:
                yield f"{module.name}: {node.name} has {lines} lines"


def test_functions_fit_on_a_screen() -> None:
    refuse([found for module in modules() for found in _long_functions(module)])


def test_no_folder_is_crowded() -> None:
    counts = Counter(
        str(module.path.parent.relative_to(ROOT))
        for module in modules()
        if not _is_migration(module)
    )
    refuse(
        f"{folder}: {count} source files"
        for folder, count in counts.items()
        if count > _MAX_FOLDER_FILES
    )


def _is_migration(module: Module) -> bool:
    return ".migrations.versions" in module.name


def test_no_small_file_serves_one_other() -> None:
    """It is merged into its importer, or named among the nouns that stay, with the reason."""
    folders = {module.name: module.path.parent for module in modules()}
    importers: dict[str, set[str]] = {}
    for module in modules():
        for needed in modules_needed(module):
            importers.setdefault(needed, set()).add(module.name)
    stay = _NOUNS.keys()
    refuse(
        f"{module.name}: {_length(module.path)} lines for {importer} alone"
        for module in modules()
        if not module.is_package and _length(module.path) < _SMALL_LINES
        for importer in importers.get(module.name, ())
        if len(importers[module.name]) == 1 and folders[importer] == module.path.parent
        if module.name not in stay
    )


def test_nouns_that_stay_are_there() -> None:
    assert _NOUNS.keys() <= {module.name for module in modules()}


def _code_lines(module: Module) -> set[int]:
    """Numbers of the lines that are neither blank, nor comment, nor docstring."""
    text = module.path.read_text()
    lines = text.splitlines()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(module.tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    code -= _lines_of(node.body[0])
    return {number for number in code if lines[number - 1].strip()}


def _lines_of(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _header_lines(module: Module) -> set[int]:
    """Numbers of the lines of imports, wherever they stand, and of `__all__`."""
    found: set[int] = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Assign(targets=[ast.Name(id="__all__")]):
                found |= _lines_of(node)
    return found


def test_code_is_more_than_imports() -> None:
    code = {module.name: _code_lines(module) for module in modules()}
    header = sum(len(_header_lines(m) & code[m.name]) for m in modules())
    total = sum(len(lines) for lines in code.values())
    assert header / total <= _MAX_HEADER_SHARE, f"{header} of {total} lines"
