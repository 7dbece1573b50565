from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.text.detokenizer import StopStrings


def feed(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    matcher = StopStrings(stops)
    given_out = [matcher.add(piece) for piece in pieces]
    return [*given_out, matcher.finish()], matcher.found


@pytest.mark.parametrize(
    ("stops", "pieces", "expected", "found"),
    [
        (["END"], ["abEN", "Dcd"], ["ab", "", ""], "END"),
        (["END"], ["abEN", "cd"], ["ab", "ENcd", ""], None),
        (["END"], ["abE", "N"], ["ab", "", "EN"], None),
        (["\n\n"], ["a\n", "b\n", "\n", "c"], ["a", "\nb", "", "", ""], "\n\n"),
        (["abcd", "bc"], ["abcd"], ["a", ""], "bc"),
        (["abcd", "bc"], ["ab", "cd"], ["", "a", ""], "bc"),
        (["bc", "abc"], ["xabc"], ["x", ""], "abc"),
        (["aab"], ["aaa", "b"], ["a", "", ""], "aab"),
        ([], ["a", "b"], ["a", "b", ""], None),
    ],
)
def test_cases(stops: list[str], pieces: list[str], expected: list[str], found: str | None) -> None:
    assert feed(stops, pieces) == (expected, found)


@given(
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    text=st.text("abc", max_size=30),
    cuts=st.sets(st.integers(0, 30)),
)
def test_pieces_do_not_matter_and_no_stop_leaks(
    stops: list[str], text: str, cuts: set[int]
) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    expected, found = feed(stops, list(text))
    given_out, found_in_pieces = feed(stops, pieces)
    assert ("".join(given_out), found_in_pieces) == ("".join(expected), found)
    assert text.startswith("".join(given_out))
    assert not any(stop in "".join(given_out) for stop in stops)
    assert (found is not None) == any(stop in text for stop in stops)
