"""A package's `__all__` is exactly what it takes from its modules; ruff (RUF022) keeps it sorted.

A module has none: there a name without an underscore is public.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .source_tree import Module, modules, refuse

# Alembic finds these by name.
_MIGRATION_NAMES = {"branch_labels", "depends_on", "down_revision", "revision"}


def _assigned(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _public_names(module: Module) -> set[str]:
    """Names that a module makes, and that a package takes from its modules."""
    names = {name for statement in module.tree.body for name in _assigned(statement)}
    if module.is_package:
        for statement in module.tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
                names |= {alias.asname or alias.name for alias in statement.names}
    return {name for name in names if not name.startswith("_")}


def _exported(module: Module) -> list[str]:
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and "__all__" in _assigned(statement):
            return list(ast.literal_eval(statement.value))
    return []


def _is_migration(module: Module) -> bool:
    return ".migrations" in module.name


def _wrong_exports(module: Module) -> Iterator[str]:
    exported = _exported(module)
    if not module.is_package:
        if exported:
            yield f"{module.name}: __all__ repeats which names have no underscore"
        return
    public = _public_names(module)
    for name in sorted({name for name in exported if exported.count(name) > 1}):
        yield f"{module.name}: {name} stands twice in __all__"
    for name in sorted(public - set(exported)):
        yield f"{module.name}: {name} is public and not in __all__"
    for name in sorted(set(exported) - public):
        yield f"{module.name}: {name} is in __all__ and not public"


def test_all_names_what_is_public() -> None:
    refuse(wrong for m in modules() if not _is_migration(m) for wrong in _wrong_exports(m))


def test_a_migration_adds_no_other_name() -> None:
    for module in modules("server"):
        if _is_migration(module) and not module.is_package and "versions" in module.name:
            assert _public_names(module) <= _MIGRATION_NAMES | {"upgrade", "downgrade"}
