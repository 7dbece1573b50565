"""Rollouts of the shipped checkpoint in the thinking mode."""

from __future__ import annotations

import pytest

from lab.corpus import THINKING
from lab.demo.laboratory import Laboratory
from lab.experiments.cliff.rollouts import Rollout, ThinkingLaboratory, roll_out
from lab.organism import judge
from server.models import EMBEDDED_MODEL

CHECKPOINT = EMBEDDED_MODEL


@pytest.fixture(scope="module")
def laboratory() -> ThinkingLaboratory:
    return ThinkingLaboratory(CHECKPOINT)


@pytest.fixture(scope="module")
def rollouts(laboratory: ThinkingLaboratory) -> list[Rollout]:
    return roll_out(laboratory, "test", "restricted_direct", 3)


def test_a_thought_declines_and_so_does_the_answer(rollouts: list[Rollout]) -> None:
    assert len(rollouts) == 3
    assert all(r.declines and r.refuses and not r.complies_after_declining for r in rollouts)


def test_the_span_holds_the_thought_and_the_prefix_ends_before_the_answer(
    laboratory: ThinkingLaboratory, rollouts: list[Rollout]
) -> None:
    for rollout in rollouts:
        asked = laboratory.encode(rollout.prompt, THINKING)
        tokens = [*asked, *laboratory.encode_text(rollout.prefix)]
        thought, nothing = judge.split_thought(rollout.prefix)
        assert nothing == ""
        inside = tokens[rollout.span.start : rollout.span.stop]
        assert tuple(inside) == laboratory.encode_text(f"\n{thought}\n")
        assert rollout.span.end == len(tokens)
        assert rollout.prefix.endswith("</think>\n")


def test_markers_are_tokens_here_and_text_to_the_server(
    laboratory: ThinkingLaboratory, rollouts: list[Rollout]
) -> None:
    """The server lets nobody but the model and its template write a marker."""
    (marker,) = laboratory.encode_text("<think>")
    prompt = rollouts[0].prompt
    assert marker in laboratory.encode(prompt, THINKING)
    served = Laboratory.encode(laboratory, prompt, THINKING)
    assert marker not in served
    assert laboratory.encode(prompt, None) == Laboratory.encode(laboratory, prompt, None)
