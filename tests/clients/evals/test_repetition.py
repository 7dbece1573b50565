"""Signs of broken text."""

from __future__ import annotations

import pytest

from coxswain_evals.counting import distinct_share, is_degenerate
from coxswain_evals.tasks import split_thought


@pytest.mark.parametrize(
    ("text", "is_broken"),
    [
        ("", True),
        (" ... !", True),
        ("Water the roses. Then rest.", False),
        ("Water the roses. Then rest. Water the roses!", True),
        ("Yes. Yes. That is right.", False),
        ("joy joy joy joy joy joy", True),
    ],
)
def test_empty_and_repeated_text_is_degenerate(text: str, is_broken: bool) -> None:
    assert is_degenerate(text, 0.5) == is_broken


def test_distinct_share_counts_ngrams() -> None:
    assert distinct_share("a b a b a", 2) == 2 / 4
    assert distinct_share("A a", 1) == 1 / 2
    assert distinct_share("word", 2) == 1.0


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("Hello. ", None, "Hello."),
        ("<think>\nhm\n</think>\nYes.", "<think>\nhm\n</think>", "Yes."),
        ("hm</think>Yes.", "hm</think>", "Yes."),
        ("<think>\nnever ends", "<think>\nnever ends", ""),
    ],
)
def test_thoughts_are_told_from_answers(text: str, thought: str | None, answer: str) -> None:
    assert split_thought(text, "</think>") == (thought, answer)
