"""The documentation names everything there is, and nothing that is not."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from server.api.schemas.steering import AppliedSteering, SteeringFields
from server.auth.permissions import Permission
from steering.directions import DirectionKind
from steering.documents import Intervention, Operation, Region, ScheduleKind, StrengthUnit, Tokens
from steering.sites import Site
from tools import reference
from tools.examples import documents

from .source_tree import ROOT, modules, refuse

_DOCS = ROOT / "docs"
_TEXTS = [
    *documents(),
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "lab/evals/README.md")),
    ROOT / "server" / "embedded" / "checkpoint" / "README.md",
]
_PRESENT = [path for path in _TEXTS if path.name != "CHANGELOG.md"]  # which says what was
_TOPS = ("clients", "deploy", "docs", "lab", "server", "steering", "tests", "tools")
_PACKAGES = ("coxswain_client", "coxswain_evals", "lab", "server", "steering", "tests", "tools")
_NO_CLASSES = {"Host", "Origin", "True"}
_REGIONS = [str(region.name).lower() for region in Region if region]


def _rows(path: Path) -> set[str]:
    """First cells of all tables of a page, without backticks."""
    lines = path.read_text().splitlines()
    return {line.split("|")[1].strip().strip("`") for line in lines if line.startswith("| ")}


def test_the_reference_is_up_to_date() -> None:
    """`make reference` writes it again."""
    assert reference.PATH.read_text() == reference.render()
    assert reference.OPENAPI_PATH.read_text() == reference.render_openapi()


@pytest.mark.parametrize("kind", [Site, DirectionKind, Operation])
def test_every_member_has_a_row(kind: type) -> None:
    assert {str(member) for member in kind} <= _rows(_DOCS / "steering.md")


def test_every_word_of_an_intervention_is_explained() -> None:
    named = [*StrengthUnit, *ScheduleKind, *Tokens, *_REGIONS, *Intervention.known()]
    words = set(re.findall(r"\w+", (_DOCS / "steering.md").read_text()))
    refuse([str(name) for name in named if str(name) not in words])


def test_every_permission_has_a_row() -> None:
    assert set(Permission) <= _rows(_DOCS / "security.md")


def test_every_route_has_an_example() -> None:
    headings = [h for h in (_DOCS / "http.md").read_text().splitlines() if h.startswith("### ")]
    text = " ".join([*headings, (_DOCS / "http.md").read_text()])
    documented = set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", text))
    assert documented == {row[0].strip("`") for row in reference.routes()}


def test_commands_shown_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shown = {
        target
        for path in _TEXTS
        for target in re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(), re.MULTILINE)
    }
    assert {"serve", "test"} <= shown <= targets
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert targets == set(phony[1].split())


def test_make_tells_its_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"^serve\s+the server on", done.stdout, re.MULTILINE)


def test_links_lead_somewhere() -> None:
    dead = [
        f"{path.name}: {target}"
        for path in _TEXTS
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text())
        if not target.startswith("https://") and not _leads_somewhere(path, target)
    ]
    refuse(dead)


def _leads_somewhere(path: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    page = (path.parent / name).resolve() if name else path
    return page.exists() and (not anchor or anchor in _anchors(page))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_paths_named_exist() -> None:
    """From the root on, or beside the page; in backticks whatever begins with a folder of ours."""
    folders = {folder.name for folder in _folders()}
    whole = re.compile(rf"(?<![\w./:-])(?:{'|'.join(_TOPS)})/[\w/.*-]*")
    quoted = re.compile(rf"`((?:{'|'.join(sorted(folders))})/[\w/.*-]*\w|[\w/]+/\w+\.py)`")
    refuse(
        f"{path.name}: {name}"
        for path in _TEXTS
        for name in {*whole.findall(path.read_text()), *quoted.findall(path.read_text())}
        if not any(list(base.glob(name.rstrip("./*"))) for base in (ROOT, path.parent))
    )


def test_files_and_folders_named_alone_exist() -> None:
    """`core.py` anywhere; of folders those that the page about them names, as `plan/`."""
    known = {path.name for folder in _folders() for path in folder.iterdir()}
    named = {path: re.findall(r"`(\w+\.py)`", path.read_text()) for path in _TEXTS}
    named[_DOCS / "architecture.md"] += re.findall(
        r"`(\w+)/`", (_DOCS / "architecture.md").read_text()
    )
    refuse(f"{path.name}: {n}" for path, names in named.items() for n in names if n not in known)


def test_modules_named_exist() -> None:
    """And what is named of them, where `steering.x` is not a field of a body or an answer."""
    fields = {*SteeringFields.model_fields, *AppliedSteering.model_fields}
    dotted = re.compile(rf"(?<![\w./:-])(?:{'|'.join(_PACKAGES)})(?:\.[a-zA-Z_]\w*)+")
    refuse(
        f"{path.name}: {name}"
        for path in _PRESENT
        for name in set(dotted.findall(path.read_text()))
        if not (name.startswith("steering.") and name.split(".")[1] in fields)
        if not (_is_there(name) or (path.parent / name).exists())
    )


def test_classes_named_exist() -> None:
    """`Scheduler`, and `Scheduler.schedule` with its member."""
    known = _classes()
    named = re.compile(r"`([A-Z]+[a-z]\w*)(?:\.(\w+))?(?:\(\))?`")
    refuse(
        f"{path.name}: {name}.{member}".rstrip(".")
        for path in _PRESENT
        for name, member in named.findall(path.read_text())
        if name not in _NO_CLASSES
        if name not in known or (member and member not in known[name])
    )


@cache
def _folders() -> tuple[Path, ...]:
    """Every folder of the project that holds a file of it."""
    tops = [ROOT / top for top in _TOPS]
    inner = [folder for top in tops for folder in top.rglob("*") if folder.is_dir()]
    return tuple(f for f in (*tops, *inner) if "__pycache__" not in f.parts and any(f.iterdir()))


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if _has_file(parts[:length]):
            found: Any = None if length == len(parts) else import_module(module)
            for part in parts[length:]:
                found = getattr(found, part, None)
                if found is None:
                    return False
            return True
    return False


def _has_file(parts: list[str]) -> bool:
    bases = (base.joinpath(*parts) for base in (ROOT, ROOT / "clients" / "python"))
    return any(base.is_dir() or base.with_suffix(".py").exists() for base in bases)


@cache
def _classes() -> dict[str, set[str]]:
    """Members by class, those of classes of one name together, without inherited ones."""
    found: dict[str, set[str]] = {}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                members = found.setdefault(node.name, set())
                members |= {str(getattr(item, "name", "")) for item in node.body}
                members |= {
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return found


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0] == version
