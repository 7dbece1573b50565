from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from steering import errors
from steering.errors import CoxswainError, SteeringError, short_repr

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, CoxswainError)
]


@pytest.mark.parametrize(
    "value", ["x" * 10**6, list(range(10**6)), [[[[[[[1]]]]]]] * 50, b"\0" * 999]
)
def test_shown_is_short_whatever_is_sent(value: Any) -> None:
    assert len(short_repr(value)) < 300


def test_shown_keeps_short_values() -> None:
    assert [short_repr(v) for v in ("a", 1.5, None, [1, "b"])] == ["'a'", "1.5", "None", "[1, 'b']"]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_tree_in_the_docstring_is_complete() -> None:
    drawn = re.findall(r"\b([A-Z]\w+Error)\b", errors.__doc__ or "")
    assert sorted(drawn) == sorted(error.__name__ for error in CLASSES)


def test_errors_are_put_under_their_place() -> None:
    assert SteeringError("m").under("a").param == "a"
    assert SteeringError("m", param="b").under("a[0]").param == "a[0].b"
    assert SteeringError("m", param="[1]").under("a").param == "a[1]"


def test_errors_take_the_name_their_caller_gives_the_field() -> None:
    assert SteeringError("m").at("a").param == "a"
    assert SteeringError("m", param="name").at("a[0].direction").param == "a[0].direction"


def test_a_wrong_steering_is_a_wrong_value() -> None:
    assert issubclass(SteeringError, ValueError)
    assert not issubclass(CoxswainError, ValueError)
