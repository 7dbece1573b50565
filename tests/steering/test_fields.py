from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from steering.errors import InvalidFieldError, NonFiniteError, shown
from steering.fields import check_keys, int_list, number, require, str_list, window_list


@pytest.mark.parametrize(
    "value", ["x" * 10**6, list(range(10**6)), [[[[[[[1]]]]]]] * 50, b"\0" * 999]
)
def test_shown_is_short_whatever_is_sent(value: Any) -> None:
    assert len(shown(value)) < 300


def test_shown_keeps_short_values() -> None:
    assert [shown(v) for v in ("a", 1.5, None, [1, "b"])] == ["'a'", "1.5", "None", "[1, 'b']"]


def test_unknown_keys_are_named_with_the_known_ones() -> None:
    check_keys({"a": 1}, {"a", "b"}, noun="a thing")
    with pytest.raises(
        InvalidFieldError, match=r"unknown field x.c of a thing; expected a, b"
    ) as e:
        check_keys({"a": 1, "c": 2}, {"a", "b"}, noun="a thing", prefix="x.")
    assert e.value.param == "x.c"
    with pytest.raises(InvalidFieldError) as long:
        check_keys({"k" * 10**5: 1}, {"a"}, noun="a thing")
    assert len(str(long.value)) < 200
    assert len(long.value.param or "") < 100


@pytest.mark.parametrize("document", [{}, {"a": None}])
def test_required_fields(document: dict[str, Any]) -> None:
    assert require({"a": 0}, "a", noun="thing") == 0
    with pytest.raises(InvalidFieldError, match="thing has no a") as caught:
        require(document, "a", noun="thing")
    assert caught.value.param == "a"


def test_numbers() -> None:
    assert number(3, "n") == 3.0
    assert isinstance(number(3, "n"), float)
    for value in (True, "1", None, [1], 1j):
        with pytest.raises(InvalidFieldError, match=r"n is .* expected a number"):
            number(value, "n")
    for value in (math.nan, math.inf, -math.inf, 10**400):
        with pytest.raises(NonFiniteError, match="n is not finite"):
            number(value, "n")


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (int_list, [3, -1], [[True], [1.0], ["1"], True, 1.5, "1", {}, [[1]]]),
        (str_list, ["a", ""], [[1], [None], 1, True, {}, [["a"]]]),
    ],
)
def test_lists(
    read: Callable[[Any, str], tuple[Any, ...]], good: list[Any], bad: list[Any]
) -> None:
    assert read(good, "f") == tuple(good)
    assert read(good[0], "f") == (good[0],)
    assert read(None, "f") == read([], "f") == ()
    for value in bad:
        with pytest.raises(InvalidFieldError, match=r"f contains .* expected") as caught:
            read(value, "f")
        assert caught.value.param == "f"


def test_windows_are_half_open_pairs() -> None:
    assert window_list([[0, 1], (5, 9)], "w") == ((0, 1), (5, 9))
    assert window_list(None, "w") == ()
    for value in ([1, 2], [[1]], [[1, 2, 3]], [[2, 2]], [[3, 2]], [[-1, 2]], 5, "ab", {"a": 1}):
        with pytest.raises(InvalidFieldError, match=r"w .* expected") as caught:
            window_list(value, "w")
        assert caught.value.param == "w"
    with pytest.raises(InvalidFieldError, match="expected integers"):
        window_list([[0, True]], "w")
