"""The judge's arithmetic, on rollouts whose scores are made up."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lab.corpus import Prompt
from lab.experiments.cliff.judge import judge_rollouts
from lab.experiments.cliff.probe import Probe
from lab.experiments.cliff.rollouts import Rollout
from steering.analysis import Cliff, ThoughtSpan

PROMPT = Prompt("restricted_framed", "?")


def rollout(*, falls: bool) -> Rollout:
    return Rollout(PROMPT, "", ThoughtSpan(0, 1, 1), "", declines=True, refuses=not falls)


class MadeUp:
    """A probe that gives rollouts the cliffs it was told."""

    def __init__(self, cliffs: list[float]) -> None:
        self._cliffs = [Cliff(1.0, 1.0 - value, value) for value in cliffs]

    def cliffs(self, rollouts: list[Rollout]) -> list[Cliff]:
        return self._cliffs[: len(rollouts)]


def judged(falls: list[bool], cliffs: list[float]) -> dict[str, Any]:
    probe = cast("Probe", MadeUp(cliffs))
    row, _ = judge_rollouts({"p": probe}, {"framed": [rollout(falls=value) for value in falls]})
    assert (row["pool"], row["probe"], row["rule"]) == ("framed", "p", "cliff")
    return row


def test_a_perfect_ranking_picks_every_fall_first() -> None:
    row = judged([True] * 10 + [False] * 30, [1.0 - i / 40 for i in range(40)])
    assert row["auc"]["value"] == row["auc"]["low"] == 1.0
    shares = {picked["fraction"]: picked["share"]["value"] for picked in row["picked"]}
    assert shares[0.25] == 1.0
    assert shares[0.5] == 0.5
    assert all(picked["random"]["value"] == 0.25 for picked in row["picked"])


def test_a_ranking_upside_down_and_one_that_says_nothing() -> None:
    falls = [True] * 10 + [False] * 30
    assert judged(falls, [i / 40 for i in range(40)])["auc"]["value"] == 0.0
    assert judged(falls, [0.5] * 40)["auc"]["value"] == pytest.approx(0.5)


def test_there_is_no_curve_without_falls() -> None:
    assert judged([False] * 8, [0.1] * 8)["auc"] is None
