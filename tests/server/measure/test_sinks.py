"""Attention sinks are found by their norms, and taken out of scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from server.engine.outputs import CaptureResult
from server.measure.instrument import Instrument
from server.measure.sinks import Sinks, find_sinks
from steering.documents import PositionContext, Scope
from steering.sites import SitePoint

PROMPTS = [tuple(range(length)) for length in (9, 10, 12, 12, 9, 14, 400, 11)]


class Activations:
    """An instrument that reads activations of length 1, but for those at given places.

    Attributes:
        long: Lengths by the number of the prompt and the position; deep in the model alone.
    """

    def __init__(self, long: dict[tuple[int, int], float]) -> None:
        self.long = long
        self.read: list[int] = []

    async def capture(
        self,
        prompts: Sequence[tuple[int, ...]],
        points: Sequence[SitePoint],
        *,
        windows: Sequence[tuple[int, int]],
        **_: Any,
    ) -> CaptureResult:
        self.read += [stop for _, stop in windows]
        sequences = {}
        for point in points:
            rows = [
                torch.nn.functional.normalize(torch.ones(stop, 8), dim=-1) for _, stop in windows
            ]
            for (prompt, position), length in self.long.items():
                if point.layer >= 12:
                    rows[prompt][position] *= length
            sequences[point] = tuple(rows)
        assert len(prompts) == len(windows)
        return CaptureResult(pooled={}, sequences=sequences)


async def found(long: dict[tuple[int, int], float]) -> Sinks:
    return await find_sinks(cast(Instrument, Activations(long)), PROMPTS, num_layers=24)


async def test_what_is_long_in_most_prompts_is_a_sink() -> None:
    first = {(prompt, 0): 170.0 for prompt in range(8)}
    some = {(prompt, 4): 30.0 for prompt in range(5)}
    few = {(prompt, 6): 90.0 for prompt in range(3)}
    short = {(prompt, 7): 7.0 for prompt in range(8)}
    only_in_the_longest = {(6, 200): 90.0}
    sinks = await found(first | some | few | short | only_in_the_longest)
    assert sinks.document() == {"positions": [0, 4], "norm_ratios": [170.0, 30.0]}


async def test_a_model_without_outliers_has_none() -> None:
    sinks = await found({})
    assert sinks == Sinks()
    scope = Scope.from_dict({"tokens": "prompt"})
    assert sinks.outside(scope) == scope


async def test_no_more_tokens_are_read_than_are_needed() -> None:
    many = Activations({})
    await find_sinks(cast(Instrument, many), PROMPTS * 9, num_layers=24)
    assert len(many.read) == 8
    assert max(many.read) <= 256


def test_a_scope_keeps_everything_but_the_sinks() -> None:
    sinks = Sinks((0, 4), (170.0, 30.0))
    context = PositionContext(8)
    for document in (
        {},
        {"tokens": "all"},
        {"tokens": ["last_prompt", "generated"]},
        {"windows": [[0, 6]], "exclude": {"windows": [[2, 3]], "tokens": "last_prompt"}},
    ):
        before = Scope.from_dict(document)
        after = sinks.outside(before)
        expected = before.mask(0, 12, context)
        expected[[0, 4]] = False
        np.testing.assert_array_equal(after.mask(0, 12, context), expected)
