"""Examples: what is taken for the same, who is held out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.measure.examples.example import Example
from server.measure.examples.examples import (
    MIN_TRAIN,
    MIN_VALIDATION,
    ContrastData,
    ContrastSets,
    Examples,
)
from steering.errors import FitError, InvalidFieldError, SteeringError

POSITIVE = [f"May I touch exhibit {i}?" for i in range(30)]
NEGATIVE = [f"When was exhibit {i} made?" for i in range(30)]


def read(data: dict[str, Any], seed: int = 0) -> Examples:
    """What stands in the member `data` of a request."""
    try:
        return Examples.of(ContrastData.from_dict(data), seed)
    except InvalidFieldError as error:
        raise error.under("data") from None


def parse(seed: int = 0, **data: Any) -> Examples:
    return read({"positive": POSITIVE, "negative": NEGATIVE, **data}, seed)


def contents(sets: ContrastSets) -> list[str]:
    return [example.canonical for example in sets.all]


def subjects(sets: ContrastSets) -> set[str]:
    return {example.subject for example in sets.all}


def test_a_share_is_held_out_of_either_side() -> None:
    examples = parse(validation=0.2)
    assert [len(s) for s in (examples.train.positive, examples.train.negative)] == [24, 24]
    assert [len(s) for s in (examples.validation.positive, examples.validation.negative)] == [6, 6]
    assert sorted(contents(examples.train) + contents(examples.validation)) == sorted(
        Example.parse(text, "").canonical for text in POSITIVE + NEGATIVE
    )
    assert not examples.notes()


def test_the_split_is_the_seeds_whatever_the_order() -> None:
    first = parse(seed=1)
    assert contents(parse(seed=1).validation) == contents(first.validation)
    turned = parse(seed=1, positive=POSITIVE[::-1])
    assert set(contents(turned.validation)) == set(contents(first.validation))
    assert set(contents(parse(seed=2).validation)) != set(contents(first.validation))


@given(
    st.lists(st.integers(0, 25), min_size=40, max_size=120),
    st.lists(st.integers(10, 40), min_size=40, max_size=120),
    st.integers(0, 5),
)
def test_no_subject_is_on_both_sides_of_a_split(
    positive: list[int], negative: list[int], seed: int
) -> None:
    """Whatever repeats: within a set, between the sets, or in other words only."""

    def items(numbers: list[int], system: str) -> list[Any]:
        return [
            [
                {"role": "system", "content": system},
                {"role": "user", "content": ("what is {}?", "What  is {}")[i % 2].format(n)},
            ]
            for i, n in enumerate(numbers)
        ]

    data = {
        "positive": items(positive, "Be gloomy."),
        "negative": items(negative, "Be plain."),
        "validation": 0.3,
    }
    try:
        examples = read(data, seed)
    except FitError:
        return  # too few different ones
    assert not subjects(examples.train) & subjects(examples.validation)
    assert len(set(contents(examples.train))) == len(contents(examples.train))


def test_duplicates_and_examples_of_both_sides_are_dropped_and_named() -> None:
    examples = parse(
        positive=[*POSITIVE, POSITIVE[3], "Ambiguous"], negative=["Ambiguous", *NEGATIVE]
    )
    assert examples.duplicates == ("data.positive[30]",)
    assert examples.leaked == ("data.positive[31]", "data.negative[0]")
    assert len(contents(examples.train) + contents(examples.validation)) == 60
    first, second = examples.notes()
    assert "data.positive[30]" in first
    assert "data.negative[0]" in second


def test_training_examples_like_those_held_out_are_dropped() -> None:
    own = {
        "positive": ["MAY I touch exhibit 4", *(f"Held out {i}" for i in range(9))],
        "negative": [f"Kept back {i}" for i in range(9)],
    }
    examples = parse(validation=own)
    assert examples.leaked == ("data.positive[4]",)
    assert len(examples.train.positive) == 29
    assert len(examples.validation.positive) == 10


def test_pairs_stay_together() -> None:
    pairs = [{"positive": p, "negative": n} for p, n in zip(POSITIVE, NEGATIVE, strict=True)]
    examples = read({"pairs": [*pairs, pairs[2]], "validation": 0.3}, 5)
    assert examples.is_paired
    assert examples.duplicates == ("data.pairs[30]",)
    for sets in (examples.train, examples.validation):
        numbers = [
            [int("".join(filter(str.isdigit, e.subject))) for e in side]
            for side in (sets.positive, sets.negative)
        ]
        assert numbers[0] == numbers[1]


def test_hashes_are_of_the_data_as_given() -> None:
    plain = parse()
    assert parse(positive=[*POSITIVE, POSITIVE[0]]).sha256["positive"] != plain.sha256["positive"]
    assert parse(seed=9, validation=0.4).sha256 == plain.sha256
    assert plain.sha256["positive"] != plain.sha256["negative"]


@pytest.mark.parametrize(
    ("data", "param", "code"),
    [
        ({"positive": None}, "data.positive", "invalid_field"),
        ({"positive": "one text"}, "data.positive", "invalid_field"),
        ({"positive": [*POSITIVE, "  "]}, "data.positive[30]", "invalid_field"),
        ({"positive": [*POSITIVE, 7]}, "data.positive[30]", "invalid_field"),
        ({"negative": [[]]}, "data.negative[0]", "invalid_field"),
        ({"negative": [["hi"]]}, "data.negative[0][0]", "invalid_field"),
        ({"negative": [[{"role": "tool", "content": "x"}]]}, "data.negative[0][0].role", None),
        ({"negative": [[{"role": "user", "content": ""}]]}, "data.negative[0][0].content", None),
        ({"negative": [[{"role": "user", "text": "x"}]]}, "data.negative[0][0].text", None),
        ({"negative": [[{"role": "system", "content": "x"}]]}, "data.negative[0]", None),
        (
            {"negative": [[{"role": r, "content": "x"} for r in ("user", "system")]]},
            "data.negative[0][1].role",
            None,
        ),
        ({"validation": 0.0}, "data.validation", "invalid_field"),
        ({"validation": 0.6}, "data.validation", "invalid_field"),
        ({"validation": "some"}, "data.validation", "invalid_field"),
        ({"validation": {"positive": ["x"]}}, "data.validation.negative", "invalid_field"),
        ({"validation": {"test": []}}, "data.validation.test", "invalid_field"),
        ({"validation": {"pairs": []}}, "data.validation", "invalid_field"),
        ({"pairs": []}, "data.positive", "invalid_field"),
        ({"positive": POSITIVE[:12]}, "data.positive", "fit_failed"),
        ({"negative": [NEGATIVE[0]] * 500}, "data.negative", "fit_failed"),
        ({"positive": ["x"] * 5000}, "data.positive", "invalid_field"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(SteeringError) as caught:
        parse(**data)
    assert caught.value.param == param
    assert caught.value.code == (code or "invalid_field")


def test_the_counts_that_are_needed_are_told() -> None:
    with pytest.raises(FitError, match=r"expected at least 8 and 4; give about 20") as caught:
        parse(positive=POSITIVE[:15])
    assert (MIN_TRAIN, MIN_VALIDATION) == (8, 4)
    assert "leaves 12 examples to fit on and 3" in str(caught.value)
    parse(positive=POSITIVE[:20], negative=NEGATIVE[:20])


@pytest.mark.parametrize("pair", [["a", "b"], {"positive": "a"}, {"positive": "a", "other": "b"}])
def test_a_pair_has_two_sides(pair: Any) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        read({"pairs": [pair]})
    assert caught.value.param is not None
    assert caught.value.param.startswith("data.pairs[0]")
