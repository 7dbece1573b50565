"""The sampler's accelerator path gives what its CPU path gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from server.engine.sampler import Sampler, prompt_logprobs
from server.engine.sampler.drawing import argmax, largest, nth_equal
from server.engine.sampling import SamplingParams
from tests.server.engine.make_request import make_request, rows_of

pytestmark = pytest.mark.gpu

PARAMS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.1, "top_k": 40, "top_p": 0.9},
    {"presence_penalty": 1.0, "repetition_penalty": 1.3, "logit_bias": {4: 3.0}},
    {"temperature": 0.0, "min_tokens": 90, "logprobs": 3},
    {"top_p": 0.5, "logprobs": 0},
]


def test_orders_agree_with_the_cpu() -> None:
    rows = torch.randn(9, 5000).bfloat16().float()  # many ties
    expected, values = argmax(rows)
    found, values_there = argmax(rows.cuda())
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(values_there.cpu(), values)
    for count in (1, 50, 5000):
        assert torch.equal(largest(rows.cuda(), count).cpu(), largest(rows, count))
    ties = torch.tensor([0, 1, 2] * 3)
    value = rows[:, 0].contiguous()
    found = nth_equal(rows.cuda(), value.cuda(), ties.cuda()).cpu()
    assert torch.equal(found, nth_equal(rows, value, ties))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_choices_agree_with_the_cpu(dtype: torch.dtype) -> None:
    sampler = Sampler(frozenset({3}))
    requests = [
        make_request([1, 2, 3], sampling=SamplingParams(**params), seed=seed)
        for seed in range(64)
        for params in PARAMS
    ]
    for request in requests:
        request.output_token_ids = [7, 7, 9]
    logits = (torch.randn(len(requests), 3000) * 3).to(dtype)
    logits[5, 7] = torch.nan
    here, there = (
        sampler.sample(logits, rows_of(requests)),
        sampler.sample(logits.cuda(), rows_of(requests)),
    )
    assert [token.is_finite for token in here] == [token.is_finite for token in there]
    differ = [a.token_id != b.token_id for a, b in zip(here, there, strict=True) if a.is_finite]
    assert sum(differ) <= 2, "float32 sums may move a boundary by a hair"
    for a, b in zip(here, there, strict=True):
        if a.logprobs is not None and b.logprobs is not None and a.token_id == b.token_id:
            assert a.logprobs.logprob == pytest.approx(b.logprobs.logprob, abs=1e-4)


def test_sampling_synchronises_with_the_host_once() -> None:
    sampler = Sampler(frozenset({3}))
    requests = [make_request(4, sampling=SamplingParams(**params)) for params in PARAMS]
    logits = torch.randn(len(PARAMS), 3000, device="cuda")
    sampler.sample(logits, rows_of(requests))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        sampler.sample(logits, rows_of(requests))
    copies = [event for event in profile.events() if "DtoH" in event.name]
    assert len(copies) == 1


def test_prompt_log_probabilities_agree_with_the_cpu() -> None:
    logits = torch.randn(300, 400)
    next_ids = [i % 400 for i in range(300)]
    here, there = (prompt_logprobs(x, next_ids, 3) for x in (logits, logits.cuda()))
    assert [entry.top_ids for entry in here] == [entry.top_ids for entry in there]
