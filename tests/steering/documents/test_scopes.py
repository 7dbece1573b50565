from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.documents import (
    EVERYWHERE,
    MAX_ITEMS,
    PositionContext,
    RegionName,
    Scope,
    Selector,
    Tokens,
)
from steering.errors import InvalidFieldError

WINDOW = st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda w: (w[0], w[0] + w[1]))
SELECTORS = st.fixed_dictionaries(
    {},
    optional={
        "tokens": st.lists(st.sampled_from(list(Tokens)), min_size=1, max_size=2),
        "windows": st.lists(WINDOW, min_size=1, max_size=2),
        "generated_windows": st.lists(WINDOW, min_size=1, max_size=2),
        "prompt_indices": st.lists(st.integers(-20, 20), min_size=1, max_size=3),
        "regions": st.lists(st.sampled_from(list(RegionName)), min_size=1, max_size=3),
    },
).map(Selector.from_dict)
SCOPES = st.builds(
    lambda include, exclude: Scope(**include.to_dict(), exclude=exclude),
    SELECTORS.filter(lambda s: not s.is_empty),
    SELECTORS,
)
LENGTH = 40
CONTEXTS = st.builds(
    PositionContext,
    num_prompt_tokens=st.integers(1, LENGTH),
    regions=st.binary(min_size=LENGTH, max_size=LENGTH).map(bytearray),
)
CUTS = st.lists(st.integers(0, LENGTH), min_size=3, max_size=3).map(sorted)


def names(selector: Selector, position: int, context: PositionContext) -> bool:
    """Whether a selector names one position, as the documentation words it."""
    boundary = context.num_prompt_tokens
    phases = {
        Tokens.ALL: True,
        Tokens.PROMPT: position < boundary,
        Tokens.GENERATED: position >= boundary,
        Tokens.LAST_PROMPT: position == boundary - 1,
    }
    indices = [i if i >= 0 else boundary + i for i in selector.prompt_indices]
    region = context.regions[position] if context.regions is not None else 0
    return (
        any(phases[phase] for phase in selector.tokens)
        or any(a <= position < b for a, b in selector.windows)
        or any(a <= position - boundary < b for a, b in selector.generated_windows)
        or (position < boundary and position in indices)
        or any(region & name.region for name in selector.regions)
    )


@settings(deadline=None, max_examples=300)
@given(SCOPES, CONTEXTS, CUTS)
def test_masks_are_the_definition_wherever_they_are_cut(
    scope: Scope, context: PositionContext, cuts: list[int]
) -> None:
    start, middle, stop = cuts
    whole = scope.mask(start, stop, context)
    assert whole.dtype == np.bool_
    parts = [scope.mask(a, b, context) for a, b in ((start, middle), (middle, stop))]
    assert np.array_equal(whole, np.concatenate(parts))
    assert whole.tolist() == [
        names(scope, p, context) and not names(scope.exclude, p, context)
        for p in range(start, stop)
    ]


@settings(deadline=None)
@given(SELECTORS, CONTEXTS)
def test_excludes_win(selector: Selector, context: PositionContext) -> None:
    both = Scope(**selector.to_dict(), exclude=selector)
    assert selector.is_empty or not both.mask(0, LENGTH, context).any()
    assert not Scope(exclude=Selector(tokens=(Tokens.ALL,))).mask(0, LENGTH, context).any()


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 20))
def test_the_prompt_ends_where_it_ended_also_after_preemption(
    num_prompt_tokens: int, num_generated: int
) -> None:
    context = PositionContext(num_prompt_tokens)
    stop = num_prompt_tokens + num_generated

    def mask(phase: str) -> Any:
        return Scope.from_dict({"tokens": phase}).mask(0, stop, context).tolist()

    prompt = [True] * num_prompt_tokens + [False] * num_generated
    assert mask("prompt") == prompt
    assert mask("generated") == [not value for value in prompt]
    assert mask("last_prompt") == [p == num_prompt_tokens - 1 for p in range(stop)]
    assert mask("all") == [True] * stop


def test_indices_outside_the_prompt_name_nothing() -> None:
    scope = Scope.from_dict({"prompt_indices": [-1, -4, -5, 4, 10**30, -(10**30)]})
    assert scope.mask(0, 8, PositionContext(4)).tolist() == [True, False, False, True] + [False] * 4


def test_windows_may_be_huge() -> None:
    scope = Scope.from_dict({"windows": [[2, 10**30]], "generated_windows": [[10**30, 10**31]]})
    assert scope.mask(0, 4, PositionContext(2)).tolist() == [False, False, True, True]


def test_regions_need_a_context_that_has_them() -> None:
    scope = Scope.from_dict({"regions": ["thinking", "answer"]})
    assert scope.uses_regions
    assert not EVERYWHERE.uses_regions
    assert Scope.from_dict({"exclude": {"regions": "answer"}}).uses_regions
    codes = bytearray([0, 1, 2, 4, 7])
    assert scope.mask(1, 5, PositionContext(9, codes)).tolist() == [False, True, True, True]
    for context in (PositionContext(9), PositionContext(9, codes[:4])):
        with pytest.raises(InvalidFieldError, match="this request has none") as caught:
            scope.mask(0, 5, context)
        assert caught.value.param == "scope.regions"


@settings(deadline=None)
@given(SCOPES)
def test_documents_round_trip_through_json(scope: Scope) -> None:
    assert Scope.from_dict(json.loads(json.dumps(scope.to_dict()))) == scope


@pytest.mark.parametrize(
    "document", [{}, {"tokens": None}, {"tokens": "all"}, {"tokens": ["all"]}, {"exclude": {}}]
)
def test_without_an_include_a_scope_is_everywhere(document: dict[str, Any]) -> None:
    assert Scope.from_dict(document) == EVERYWHERE
    assert EVERYWHERE.to_dict() == {"tokens": "all"}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"token": "all"}, "token"),
        ({"tokens": "everything"}, "tokens"),
        ({"tokens": "ALL"}, "tokens"),
        ({"tokens": 3}, "tokens"),
        ({"tokens": []}, "tokens"),
        ({"windows": []}, "windows"),
        ({"windows": [[3, 3]]}, "windows"),
        ({"windows": [[-1, 3]]}, "windows"),
        ({"windows": [[0, 1]] * (MAX_ITEMS + 1)}, "windows"),
        ({"generated_windows": [1, 2]}, "generated_windows"),
        ({"prompt_indices": [1.0]}, "prompt_indices"),
        ({"prompt_indices": list(range(MAX_ITEMS + 1))}, "prompt_indices"),
        ({"regions": ["none"]}, "regions"),
        ({"regions": ["Thinking"]}, "regions"),
        ({"regions": 2}, "regions"),
        ({"exclude": "prompt"}, "exclude"),
        ({"exclude": []}, "exclude"),
        ({"exclude": {"tokens": "some"}}, "exclude.tokens"),
        ({"exclude": {"tokens": []}}, "exclude.tokens"),
        ({"exclude": {"exclude": {}}}, "exclude.exclude"),
        ({"exclude": {"windows": [[2, 1]]}}, "exclude.windows"),
    ],
)
def test_bad_documents_name_the_field(document: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidFieldError, match="expected") as caught:
        Scope.from_dict(document)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "value",
    [[1, 2], [[1]], [[1, 2, 3]], [[2, 2]], [[3, 2]], [[-1, 2]], [[0, True]], 5, "ab", {"a": 1}],
)
def test_windows_are_half_open_pairs(value: Any) -> None:
    assert Scope.from_dict({"windows": [[0, 1], (5, 9)]}).windows == ((0, 1), (5, 9))
    with pytest.raises(InvalidFieldError, match=r"windows .* expected") as caught:
        Scope.from_dict({"windows": value})
    assert caught.value.param == "windows"
