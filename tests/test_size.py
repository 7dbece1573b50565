"""Files and functions stay small enough to read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from .source_tree import ROOT, Module, modules, text_files

_MAX_LINES = 500
_MAX_MEDIAN = 120
_MAX_FUNCTION_LINES = 40


def _length(path: Path) -> int:
    return len(path.read_text().splitlines())


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the statements, without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_no_file_is_longer_than_the_cap() -> None:
    lengths = {p.relative_to(ROOT): _length(p) for p in text_files() if p.suffix == ".py"}
    assert {str(p): n for p, n in lengths.items() if n > _MAX_LINES} == {}


def test_the_median_file_is_short() -> None:
    assert median(_length(m.path) for m in modules() if not m.is_package) <= _MAX_MEDIAN


def _long_functions(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _body_lines(node)
            if lines > _MAX_FUNCTION_LINES:
                yield f"{module.name}: {node.name} has {lines} lines"


def test_functions_fit_on_a_screen() -> None:
    assert [found for module in modules() for found in _long_functions(module)] == []
