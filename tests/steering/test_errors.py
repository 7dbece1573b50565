from __future__ import annotations

import inspect
import re

from steering import errors
from steering.errors import SteeringError

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, SteeringError)
]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_tree_in_the_docstring_is_complete() -> None:
    drawn = re.findall(r"\b([A-Z]\w+Error)\b", errors.__doc__ or "")
    assert sorted(drawn) == sorted(error.__name__ for error in CLASSES)
