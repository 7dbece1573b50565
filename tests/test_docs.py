"""The documentation names everything there is, and nothing that is not."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from server.auth.permissions import Permission
from steering.directions import DirectionKind
from steering.documents import Intervention, Operation, Region, ScheduleKind, StrengthUnit, Tokens
from steering.sites import Site
from tools import reference
from tools.examples import documents

from .source_tree import ROOT, refuse

_DOCS = ROOT / "docs"
_TEXTS = [*documents(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
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


def test_files_named_exist() -> None:
    named = re.compile(r"`((?:steering|server|tests|tools|deploy|clients|bench)/[\w/.*-]+)`")
    missing = [
        f"{path.name}: {name}"
        for path in _TEXTS
        for name in named.findall(path.read_text())
        if not list(ROOT.glob(f"{name.rstrip('*/')}*"))
    ]
    refuse(missing)


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0] == version
