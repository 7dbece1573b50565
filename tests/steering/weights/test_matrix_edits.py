"""Edits of one weight along a direction: removed, amplified, injected as published."""

from __future__ import annotations

import torch

from steering.weights import amplify, mean_row, orthogonalize, rosi, rosi_calibrated

D, D_IN = 24, 40
W = torch.randn(D, D_IN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
S = torch.randn(D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
X = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
UNIT = S / S.norm()


def test_it_is_the_published_formula() -> None:
    expected = W.clone()
    for i in range(D):
        for j in range(D_IN):
            expected[i, j] += 3.0 * UNIT[i] * sum(W[k, j] for k in range(D)) / D
    torch.testing.assert_close(rosi(W, S, 3.0), expected)


def test_the_output_moves_by_its_own_mean() -> None:
    y = X @ W.T
    expected = y + 3.0 * y.mean(dim=-1, keepdim=True) * UNIT
    torch.testing.assert_close(X @ rosi(W, S, 3.0).T, expected)


def test_the_mean_is_that_of_the_original_rows() -> None:
    """Twice alpha is not the edit done twice, which would take the mean of edited rows."""
    twice = rosi(rosi(W, S, 1.0), S, 1.0)
    assert not torch.allclose(rosi(W, S, 2.0), twice)
    torch.testing.assert_close(rosi(W, S, 2.0) - W, 2.0 * (rosi(W, S, 1.0) - W))


def test_experts_are_edited_each_for_itself() -> None:
    stack = torch.stack([W, 2 * W.flip(0)])
    torch.testing.assert_close(rosi(stack, S, 2.0)[1], rosi(stack[1], S, 2.0))


def test_weights_of_centred_rows_stay_as_they_are() -> None:
    centred = W - W.mean(dim=0)
    assert mean_row(centred).norm() < 1e-12
    torch.testing.assert_close(rosi(centred, S, 100.0), centred)


def test_the_calibrated_variant_pushes_along_the_direction_on_average() -> None:
    for inputs in (X, -X):
        mean = float((inputs @ W.T).mean())
        y = inputs @ W.T
        pushed = inputs @ rosi_calibrated(W, S, 2.0, mean).T
        assert ((pushed - y) @ UNIT).mean() > 0
    assert torch.equal(rosi_calibrated(W, S, 2.0, 0.0), W)
    torch.testing.assert_close(rosi_calibrated(W, S, 2.0, -1e-9), rosi(W, S, -2.0))


def test_halves_are_computed_in_full_precision() -> None:
    half = W.bfloat16()
    edited = rosi(half, S.bfloat16(), 1.0)
    assert edited.dtype is torch.float32
    torch.testing.assert_close(edited, rosi(half.double(), S.bfloat16().double(), 1.0).float())


def test_orthogonalised_weights_write_nothing_along_the_direction() -> None:
    edited = orthogonalize(W, S)
    assert (UNIT @ edited).abs().max() < 1e-12
    torch.testing.assert_close(orthogonalize(edited, S), edited)
    projector = torch.eye(D, dtype=torch.float64) - torch.outer(UNIT, UNIT)
    torch.testing.assert_close(edited, projector @ W)


def test_amplified_weights_write_more_of_it_and_the_rest_as_before() -> None:
    edited = amplify(W, S, 0.5)
    torch.testing.assert_close(UNIT @ edited, 1.5 * (UNIT @ W))
    torch.testing.assert_close(orthogonalize(edited, S), orthogonalize(W, S))
    torch.testing.assert_close(amplify(edited, S, 1 / 1.5 - 1), W)


def test_the_length_of_the_direction_is_of_no_account() -> None:
    torch.testing.assert_close(amplify(W, 7.0 * S, 0.5), amplify(W, S, 0.5))


def test_experts_and_biases_are_edited_alike() -> None:
    stack = torch.stack([W, W.flip(1)])
    torch.testing.assert_close(amplify(stack, S, 0.5)[1], amplify(stack[1], S, 0.5))
    bias = W[:, :1]
    torch.testing.assert_close(amplify(bias, S, 0.5), amplify(W, S, 0.5)[:, :1])
