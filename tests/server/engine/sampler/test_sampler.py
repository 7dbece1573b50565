from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from server.engine.errors import InvalidSamplingError
from server.engine.request import Request
from server.engine.sampler import Sampler
from server.engine.sampler.sampling_batch import SamplingBatch, uniform
from server.engine.sampling import SamplingParams
from tests.server.engine.make_request import make_request, rows_of

from . import sampling_oracle as oracle

VOCAB = 150
END = frozenset({3, 77})
SAMPLER = Sampler(END)


def row_request(seed: int = 0, output: int = 0, **params: Any) -> Request:
    request = make_request([1, 2, 3, 5, 8], sampling=SamplingParams(**params), seed=seed)
    request.output_token_ids = [(7 * i) % 20 for i in range(output)]
    return request


def logits_of(num_rows: int, *, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def chosen(logits: torch.Tensor, requests: list[Request]) -> list[int]:
    return [token.token_id for token in SAMPLER.sample(logits, rows_of(requests))]


PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.0},
    {"temperature": 1e-30},
    {"top_k": 1},
    {"top_k": 7},
    {"top_p": 0.5},
    {"top_p": 1e-9},
    {"min_p": 0.2},
    {"top_k": 12, "top_p": 0.6},
    {"top_k": 9, "top_p": 0.8, "min_p": 0.05, "temperature": 1.5},
    {"presence_penalty": 2.0},
    {"frequency_penalty": -1.0},
    {"repetition_penalty": 1.9},
    {"repetition_penalty": 0.6, "frequency_penalty": 0.7, "presence_penalty": -1.5},
    {"logit_bias": {4: 6.0, 9: -100.0}},
    {"min_tokens": 100, "stop_token_ids": (6,), "logit_bias": {3: 50.0, 6: 50.0}},
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_each_parameter_gives_the_documented_distribution(params: dict[str, Any]) -> None:
    num_draws = 2000
    request = row_request(output=30, **params)
    logits = logits_of(1)
    expected = num_draws * oracle.distribution(logits[0].numpy(), request, END)
    requests = [row_request(seed, output=30, **params) for seed in range(num_draws)]
    counts = np.bincount(chosen(logits.expand(num_draws, -1), requests), minlength=VOCAB)
    assert not counts[expected == 0.0].any()
    assert chi_square(counts, expected) < 1.0


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """The statistic over its mean plus five deviations; cells that expect under 5 are one cell."""
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    statistic = ((counts - expected) ** 2 / np.maximum(expected, 1.0)).sum()
    degrees = len(counts) - 1
    return float(statistic / (degrees + 5 * np.sqrt(2 * degrees) + 5))


NUMBERS = {  # where each may lie
    "temperature": (0.0, 2.0),
    "top_p": (2.0**-126, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1e-6, 2.0),
    "logit_bias": (-100.0, 100.0),
}


def spread_numbers() -> list[float]:
    """Down to the least double, and as near to 1 and 2 as doubles come."""
    small = [10.0**-k for k in range(1, 324, 3)] + [2.0**-k for k in (126, 127, 149, 150, 1074)]
    signed = [*small, *(-number for number in small)]
    return list(dict.fromkeys(base + number for number in signed for base in (0.0, 1.0, 2.0)))


@pytest.mark.parametrize("scale", [1e-3, 2.0, 1e4])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_refused_or_means_what_it_says(name: str, scale: float) -> None:
    """What is drawn is possible in float64, or the number is refused by its name."""
    low, high = NUMBERS[name]
    logits = logits_of(1, seed=3, scale=scale)
    num_tried = 0
    for value in spread_numbers():
        given: Any = {4: value} if name == "logit_bias" else value
        if not low <= value <= high or 0.0 < abs(value) < 2.0**-126:
            with pytest.raises(InvalidSamplingError) as caught:
                SamplingParams(**{name: given})
            assert caught.value.param == name
            continue
        num_tried += 1
        requests = [row_request(seed, output=30, **{name: given}) for seed in range(4)]
        expected = oracle.distribution(logits[0].numpy(), requests[0], END)
        found = SAMPLER.sample(logits.expand(4, -1), rows_of(requests))
        assert all(token.is_finite and expected[token.token_id] > 0.0 for token in found), value
    assert num_tried > 10


@pytest.mark.parametrize("params", [p for p in PARAMS if "penalty" in str(p) or "bias" in str(p)])
def test_greedy_rows_see_penalties_and_bias(params: dict[str, Any]) -> None:
    for seed in range(20):
        logits = logits_of(1, seed=seed)
        request = row_request(output=30, temperature=0.0, **params)
        expected = int(oracle.edited(logits[0].numpy(), request, END).argmax())
        assert chosen(logits, [request]) == [expected]


def mixed_requests() -> list[Request]:
    plain = [row_request(seed, output=seed, **params) for seed, params in enumerate(PARAMS)]
    greedy = [row_request(temperature=0.0, logprobs=count) for count in (0, 3, None)]
    return [*greedy, *plain, row_request(99, logprobs=2, top_k=3), row_request(100)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_in_any_batch(dtype: torch.dtype) -> None:
    requests = mixed_requests()
    logits = logits_of(len(requests)).to(dtype)
    together = SAMPLER.sample(logits, rows_of(requests))
    order = list(np.random.default_rng(0).permutation(len(requests)))
    shuffled = SAMPLER.sample(logits[order], rows_of([requests[i] for i in order]))
    for i, request in enumerate(requests):
        alone = SAMPLER.sample(logits[i : i + 1], rows_of([request]))[0]
        assert alone == together[i] == shuffled[order.index(i)]


class OnceRead(Sequence[int]):
    """Counts how many of its items are asked for, however they are."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.num_read = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Any) -> Any:
        found = self.items[key]
        self.num_read += len(found) if isinstance(key, slice) else 1
        return found


@pytest.mark.parametrize("params", [p for p in PARAMS if "penalty" in str(p)], ids=str)
def test_penalties_read_each_token_of_an_answer_once(params: dict[str, Any]) -> None:
    """Step after step, and still what the whole answer asks for."""
    rng, logits = np.random.default_rng(0), logits_of(1)
    request = row_request(**params, temperature=0.0)
    request.output_token_ids = output = OnceRead()  # type: ignore[assignment]
    for _ in range(200):
        found = chosen(logits, [request])[0]
        num_read = output.num_read
        edited = oracle.edited(logits[0].numpy(), request, END)
        output.num_read = num_read  # the oracle reads all of it
        assert edited[found] > edited.max() - 1e-4
        output.items.append(int(rng.integers(VOCAB)))
    assert output.num_read <= 200


@pytest.mark.parametrize("num_rows", [1, 40])
def test_rows_that_are_both_edited_and_random_are_found(num_rows: int) -> None:
    kinds = [{}, {"temperature": 0.0}, {"top_k": 1, "logit_bias": {9: 100.0}}]
    kinds.append({"temperature": 0.0, "logit_bias": {8: 100.0}})
    requests = [row_request(i, **kinds[i % 4]) for i in range(num_rows)]
    batch = SamplingBatch.from_rows(rows_of(requests), VOCAB, END, torch.device("cpu"))
    both = [i for i in range(num_rows) if i % 4 == 2]
    assert [batch.random_rows[i] for i in batch.edited_random] == both
    assert [batch.edited_rows[i] for i in batch.random_edited] == both


def test_logits_are_left_as_they_were() -> None:
    requests = mixed_requests()
    logits = logits_of(len(requests))
    before = logits.clone()
    SAMPLER.sample(logits, rows_of(requests))
    assert torch.equal(logits, before)


def test_equals_are_taken_by_lowest_id_and_limits_cut_between_them() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [10, 20, 30, 40]] = 1.0
    assert chosen(logits, [row_request(temperature=0.0)]) == [10]
    assert set(chosen(logits.expand(60, -1), [row_request(s, top_k=2) for s in range(60)])) == {
        10,
        20,
    }
    five = set(chosen(logits.expand(300, -1), [row_request(s, top_k=5) for s in range(300)]))
    assert five == {0, 10, 20, 30, 40}


def test_seed_choice_and_position_alone_decide() -> None:
    draws = {
        uniform(seed, choice, index) for seed in range(9) for choice in (0, 1) for index in (0, 1)
    }
    assert len(draws) == 36
    assert uniform(5, 0, 7) == uniform(5, 0, 7)
    values = np.array([uniform(0, 0, index) for index in range(4000)])
    assert 0.0 < values.min() < values.max() < 1.0
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert ((counts - 200) ** 2 / 200).sum() < 50
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "params", [{"temperature": 0.0}, {}, {"top_k": 5}, {"top_p": 0.5}], ids=str
)
def test_a_row_that_is_not_finite_is_flagged_and_disturbs_nobody(
    bad: float, params: dict[str, Any]
) -> None:
    logits = logits_of(3)
    requests = [row_request(seed, logprobs=2, **params) for seed in range(3)]
    clean = SAMPLER.sample(logits, rows_of(requests))
    logits[1, 50] = bad
    outcomes = SAMPLER.sample(logits, rows_of(requests))
    assert [outcome.is_finite for outcome in outcomes] == [True, False, True]
    assert (outcomes[0], outcomes[2]) == (clean[0], clean[2])
    assert 0 <= outcomes[1].token_id < VOCAB


def test_masked_vocabulary_is_finite_but_an_empty_row_is_not() -> None:
    logits = logits_of(2)
    logits[0, 100:] = -torch.inf
    logits[1] = -torch.inf
    outcomes = SAMPLER.sample(logits, rows_of([row_request(), row_request()]))
    assert [outcome.is_finite for outcome in outcomes] == [True, False]
    assert outcomes[0].token_id < 100


@pytest.mark.parametrize(
    "params",
    [
        {"top_p": 0.01},
        {"top_p": 0.3},
        {"top_p": 0.9},
        {"top_p": 0.999},
        {"top_k": 2000},
        {"top_k": 2000, "top_p": 0.7},
        {"top_k": 9000, "top_p": 0.99},
        {"top_k": 1024},
        {},
    ],
    ids=str,
)
def test_wide_vocabularies_are_drawn_from_like_narrow_ones(params: dict[str, Any]) -> None:
    """Where the CPU first tries with the likeliest only, alone and beside rows that need all."""
    logits = torch.randn(9, 20_000, generator=torch.Generator().manual_seed(1))
    requests = [row_request(seed, **params) for seed in range(8)]
    needs_all = row_request(9, top_p=0.9999)
    alone = chosen(logits[:8], requests)
    assert chosen(logits, [*requests, needs_all])[:8] == alone
    for row, request, token in zip(logits, requests, alone, strict=False):
        expected = oracle.distribution(row.numpy(), request, END)
        order = np.argsort(-expected, kind="stable")
        order = order if {"top_k", "top_p"} & set(params) else np.arange(len(expected))
        place = np.searchsorted(expected[order].cumsum(), uniform(request.seed, 0, 0))
        near = order[max(place - 1, 0) : place + 2]  # float32 sums move a boundary by a hair
        assert token in near
