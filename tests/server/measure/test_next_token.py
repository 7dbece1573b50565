"""Numbers of next-token distributions, beside torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from server.measure.next_token import distinguishing_tokens, kl_divergences, token_log_odds


def logprobs(rows: int, vocab: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab, generator=generator, dtype=torch.float64) * scale
    return logits.log_softmax(dim=-1)


def test_divergence_is_torchs() -> None:
    plain, edited = logprobs(5, 40, 0), logprobs(5, 40, 1)
    want = torch.nn.functional.kl_div(edited, plain, reduction="none", log_target=True).sum(-1)
    assert kl_divergences(plain, edited) == pytest.approx(want.tolist(), rel=1e-12)
    assert kl_divergences(plain, plain) == [0.0] * 5
    assert all(value > 0 for value in kl_divergences(plain, edited))


def test_tokens_that_cannot_come_do_not_count() -> None:
    plain = torch.tensor([[0.0, -math.inf]])
    assert kl_divergences(plain, torch.tensor([[0.5, 0.5]]).log()) == pytest.approx([math.log(2)])


def test_log_odds_are_those_of_the_summed_probability() -> None:
    rows = logprobs(6, 30, 2)
    chosen = (3, 17, 4)
    p = rows.exp()[:, chosen].sum(-1)
    want = (p.log() - (1 - p).log()).tolist()
    assert token_log_odds(rows, chosen) == pytest.approx(want, rel=1e-9)


def test_log_odds_keep_their_digits_near_one() -> None:
    """1 - P is 1e-20, which float64 cannot hold beside 1."""
    rows = torch.tensor([[0.0, -math.log(1e20)]], dtype=torch.float64).log_softmax(-1)
    assert token_log_odds(rows, [0]) == pytest.approx([math.log(1e20)])


def test_telling_tokens_begin_the_answers_of_one_side() -> None:
    positive = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.5, 0.3, 0.1, 0.1]]).log()
    negative = torch.tensor([[0.0, 0.1, 0.1, 0.8], [0.0, 0.1, 0.2, 0.7]]).log()
    assert distinguishing_tokens(positive, negative) == (0, 1)
    assert distinguishing_tokens(negative, positive) == (3,)
    assert distinguishing_tokens(positive, negative, max_tokens=1) == (0,)
    assert distinguishing_tokens(positive, positive) == ()
