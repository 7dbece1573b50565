"""The examples of each page run, and print what it says, against a real server of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.examples import documents, examples, is_here, model_of, run, stable
from tools.local_server import local_server

_PAGES = [path for path in documents() if examples(path)]


@pytest.fixture
def address(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = model_of(page)
    if not is_here(model):
        pytest.skip(f"the examples of {page.name} need {model}: make model")
    folder = tmp_path_factory.mktemp("server")
    with local_server(folder, {"COXSWAIN_MODEL": model}) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_a_page_is_true(page: Path, address: str, tmp_path: Path) -> None:
    """`make transcripts` writes the outputs again."""
    if shutil.which("curl") is None:
        pytest.skip("the examples use curl")
    for example in examples(page):
        printed = run(example, address, tmp_path)
        if example.output is not None:
            assert stable(printed) == stable(example.output), str(example)


def test_the_readme_shows_plain_and_steered_answers_with_both_clients() -> None:
    shown = [e for e in examples(documents()[0]) if e.output is not None]
    assert [e.language for e in shown].count("python") >= 1
    assert sum("curl" in e.code for e in shown) >= 2
    assert any('"steering"' in e.code for e in shown)
    assert all(e.output for e in shown), "written by make transcripts"
