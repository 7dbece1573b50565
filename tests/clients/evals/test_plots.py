"""Pictures: the same numbers draw the same bytes, and what a model wrote stays text."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from coxswain_client.models.analysis import Cliffs, Heads, Trace
from coxswain_evals.plots import PlotError, draw_cliffs, draw_heads, draw_trace, trace_page
from coxswain_evals.plots.analysis import bound, visible_text
from tests.clients.found_inside import CLIFFS, HEADS, TRACE

Draw = Callable[[Path], None]

PICTURES: dict[str, Draw] = {
    "trace": lambda path: draw_trace(Trace.model_validate(TRACE), path),
    "cliffs": lambda path: draw_cliffs(Cliffs.model_validate(CLIFFS), path),
    "heads": lambda path: draw_heads(Heads.model_validate(HEADS), path),
    "causal": lambda path: draw_heads(
        Heads.model_validate({**HEADS, "method": "causal", "probability": None}), path
    ),
}


@pytest.fixture(params=PICTURES)
def draw(request: pytest.FixtureRequest) -> Draw:
    return PICTURES[request.param]


def test_a_png_is_one(draw: Draw, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    draw(path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 200
    assert height > 100


def test_the_same_numbers_draw_the_same_bytes(draw: Draw, tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    draw(first)
    draw(second)
    assert first.read_bytes() == second.read_bytes()
    assert b"<svg" in first.read_bytes()


def test_another_ending_is_refused(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(PlotError, match=r"expected \.png or \.svg"):
        draw(tmp_path / "picture.pdf")


def test_without_the_extra_the_error_names_it(
    draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coxswain_evals.plots.figure_file.find_spec", lambda name: None)
    with pytest.raises(PlotError, match=re.escape("coxswain[evals]")):
        draw(tmp_path / "picture.png")


class _Cells(HTMLParser):
    """Texts of the table's cells, and every element's name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.cells: list[tuple[dict[str, str | None], str]] = []
        self._open: dict[str, str | None] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self._open = dict(attrs) if tag == "td" and attrs else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.cells.append((self._open, data))
            self._open = None


def test_a_page_shows_every_token_of_every_readout_as_text() -> None:
    page = trace_page(Trace.model_validate(TRACE), "a <b> trace")
    parsed = _Cells()
    parsed.feed(page)
    assert not parsed.names & {"b", "script", "link", "img"}
    assert len(parsed.cells) == 3 * 4
    texts = [text for _, text in parsed.cells[:4]]
    assert texts == ["<|im_start|>", "\u2423$5\u2423&\u2423<b>", "\u23ce", "\ufffd\ufffd"]
    colours = [str(attributes["style"]) for attributes, _ in parsed.cells]
    assert colours[3] == "background:rgb(255,255,255)", "what was not read is white"
    assert str(parsed.cells[3][0]["title"]).startswith("not read")
    assert [attributes.get("class") for attributes, _ in parsed.cells[:4]].count("generated") == 1


def test_red_is_above_and_blue_below() -> None:
    parsed = _Cells()
    parsed.feed(trace_page(Trace.model_validate(TRACE)))
    values = [re.findall(r"\d+", str(attributes["style"])) for attributes, _ in parsed.cells]
    (cold_red, _, cold_blue), (warm_red, _, warm_blue) = (map(int, values[i]) for i in (1, 2))
    assert cold_blue > cold_red
    assert warm_red > warm_blue


def test_full_colour_is_the_largest_score() -> None:
    assert bound(Trace.model_validate(TRACE)) == 2.0
    flat: dict[str, Any] = {**TRACE, "readouts": [{**TRACE["readouts"][0], "scores": [0.0] * 4}]}
    assert bound(Trace.model_validate(flat)) == 1.0


def test_white_space_is_visible() -> None:
    assert visible_text(" a\n") == "\u2423a\u23ce"
    assert visible_text("") == "\u2205"
