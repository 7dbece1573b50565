from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from server.engine.sampler import PositionLogprobs, Sampler, prompt_logprobs
from server.engine.sampling import SamplingParams
from tests.server.engine.make_request import make_request, rows_of

from . import sampling_oracle as oracle

SAMPLER = Sampler(frozenset())


def test_log_probabilities_are_the_models_own() -> None:
    logits = torch.randn(3, 60)
    params = SamplingParams(temperature=0.2, top_k=2, logit_bias={7: 100.0}, logprobs=4)
    for row, outcome in zip(
        logits, SAMPLER.sample(logits, rows_of([make_request(sampling=params)] * 3)), strict=True
    ):
        expected = oracle.log_softmax(row.numpy())
        assert outcome.token_id == 7
        assert outcome.logprobs is not None
        assert outcome.logprobs.logprob == pytest.approx(expected[7], abs=1e-5)
        assert outcome.logprobs.top_ids == tuple(np.argsort(-expected)[:4])
        assert outcome.logprobs.top_logprobs == pytest.approx(np.sort(expected)[::-1][:4], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_likeliest_token_equals_the_top_exactly(dtype: torch.dtype) -> None:
    logits = (torch.randn(64, 500) * 3).to(dtype)
    params = SamplingParams(temperature=0.0, logprobs=1)
    for outcome in SAMPLER.sample(logits, rows_of([make_request(sampling=params)] * 64)):
        assert outcome.logprobs is not None
        assert outcome.logprobs.logprob == max(outcome.logprobs.top_logprobs)


def test_rows_get_as_many_as_they_ask_for() -> None:
    counts = (None, 0, 5, 2)
    requests = [make_request(sampling=SamplingParams(temperature=0, logprobs=c)) for c in counts]
    outcomes = SAMPLER.sample(torch.randn(4, 30), rows_of(requests))
    found = [None if o.logprobs is None else len(o.logprobs.top_ids) for o in outcomes]
    assert found == [None, 0, 5, 2]


def test_prompt_log_probabilities_are_of_the_next_token() -> None:
    logits = torch.randn(700, 40)  # more than one slice
    next_ids = [i % 40 for i in range(700)]
    entries = prompt_logprobs(logits, next_ids, 2)
    for row, token, entry in zip(logits, next_ids, entries, strict=True):
        expected = oracle.log_softmax(row.numpy())
        assert entry.token_id == token
        assert entry.logprob == pytest.approx(expected[token], abs=1e-5)
        is_greedy = entry.logprob == max(entry.top_logprobs)
        assert is_greedy == (token == expected.argmax())


def test_more_than_the_vocabulary_is_the_vocabulary() -> None:
    (entry,) = prompt_logprobs(torch.randn(1, 5), [2], 20)
    assert sorted(entry.top_ids) == [0, 1, 2, 3, 4]
    assert sum(map(math.exp, entry.top_logprobs)) == pytest.approx(1.0)


def test_text_is_added_at_the_end() -> None:
    position = PositionLogprobs(3, -0.5, (3, 1), (-0.5, -2.0))
    told = position.with_text(lambda token: f"<{token}>")
    assert (told.chosen.text, told.chosen.logprob) == ("<3>", -0.5)
    assert [(entry.token_id, entry.text, entry.logprob) for entry in told.top] == [
        (3, "<3>", -0.5),
        (1, "<1>", -2.0),
    ]
    assert position.is_finite
    assert not PositionLogprobs(3, float("nan")).is_finite
