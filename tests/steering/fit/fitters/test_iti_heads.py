from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import DirectionKind
from steering.errors import FitError, InvalidFieldError
from steering.fit.fitters.iti_heads import fit_iti_heads
from steering.sites import Site

from .apply_direction import apply_direction
from .gaussians import FloatArray

HEADS, HEAD_DIM = 4, 6
WIDTH = HEADS * HEAD_DIM
LAYERS = (1, 4, 6)
KNOWING = {(1, 2), (6, 0), (6, 3)}


def sets(seed: int, *, num_samples: int = 80) -> Any:
    """Heads that know the label, and one whose means differ by noise alone."""
    generator = np.random.default_rng(seed)
    positive: dict[int, FloatArray] = {}
    negative: dict[int, FloatArray] = {}
    for layer in LAYERS:
        spread = generator.uniform(0.5, 2.0, WIDTH)
        for rows in (positive, negative):
            rows[layer] = generator.standard_normal((num_samples, WIDTH)) * spread + 1
        for known_layer, head in KNOWING:
            if known_layer == layer:
                positive[layer][:, head * HEAD_DIM] += 8.0
    return tensors(positive), tensors(negative)


def tensors(rows: dict[int, FloatArray]) -> dict[int, torch.Tensor]:
    return {layer: torch.from_numpy(value) for layer, value in rows.items()}


def head(rows: torch.Tensor, index: int) -> FloatArray:
    return rows[:, index * HEAD_DIM : (index + 1) * HEAD_DIM].numpy()


def test_the_heads_that_know_are_found_and_the_others_left_alone() -> None:
    positive, negative = sets(0)
    direction = fit_iti_heads(positive, negative, name="h", num_heads=HEADS, top_k=3)
    chosen = {(row["layer"], row["head"]) for row in direction.provenance["heads"]}
    assert chosen == KNOWING
    assert (direction.kind, direction.site) == (DirectionKind.VECTOR, Site.HEADS)
    assert direction.layers == (1, 6)
    for layer in direction.layers:
        parts = direction.at(layer)["vector"].reshape(HEADS, HEAD_DIM)
        for index in range(HEADS):
            assert bool(parts[index].any()) is ((layer, index) in KNOWING)
    accuracies = direction.provenance["accuracies"]
    assert sum(len(row) for row in accuracies.values()) == HEADS * len(LAYERS)
    assert all(accuracies[str(layer)][str(index)] > 0.95 for layer, index in KNOWING)


def test_adding_it_shifts_each_selected_head_by_alpha_sigma_theta() -> None:
    positive, negative = sets(1)
    direction = fit_iti_heads(positive, negative, name="h", num_heads=HEADS, top_k=3)
    for layer in direction.layers:
        rows = negative[layer].numpy()
        shift = apply_direction(direction, rows, "add", layer=layer, strength=15.0) - rows
        for index in range(HEADS):
            own = head(torch.from_numpy(shift), index)
            if (layer, index) not in KNOWING:
                assert not own.any()
                continue
            plus, minus = (head(x[layer], index) for x in (positive, negative))
            theta = plus.mean(axis=0) - minus.mean(axis=0)
            theta /= np.linalg.norm(theta)
            sigma = np.std(np.concatenate([plus, minus]) @ theta)
            np.testing.assert_allclose(own, np.tile(15 * sigma * theta, (len(own), 1)), rtol=1e-5)


def test_of_heads_that_are_always_right_the_surer_one_is_selected() -> None:
    positive, negative = sets(8)
    positive[4][:, HEAD_DIM] += 40.0  # layer 4, head 1
    direction = fit_iti_heads(positive, negative, name="h", num_heads=HEADS, top_k=1)
    [best] = direction.provenance["heads"]
    assert (best["layer"], best["head"], best["accuracy"]) == (4, 1, 1.0)
    assert best["d_prime"] > 20


def test_accuracies_are_of_samples_held_out() -> None:
    """Labels without content: a probe remembers what it saw, and guesses what it did not."""
    generator = np.random.default_rng(2)
    rows = {0: generator.standard_normal((2, 30, 200))}
    direction = fit_iti_heads(
        tensors({0: rows[0][0]}), tensors({0: rows[0][1]}), name="h", num_heads=1, validation=0.5
    )
    assert direction.provenance["heads"][0]["accuracy"] < 0.75


def test_pairs_are_held_out_together() -> None:
    """Each pair has a mark of its own, larger than what all share; held out, it tells nothing."""
    generator = np.random.default_rng(3)
    marks = 30 * generator.standard_normal((40, 200))
    signs = np.sign(generator.standard_normal((40, 1)))
    noise = generator.standard_normal((2, 40, 200))
    positive, negative = noise[0] + signs * marks, noise[1] - signs * marks
    direction = fit_iti_heads(
        tensors({0: positive}), tensors({0: negative}), name="h", num_heads=1, validation=0.5
    )
    # A partner in training would give the held-out one away: accuracy far from one half.
    assert 0.25 < direction.provenance["heads"][0]["accuracy"] < 0.75


def test_by_default_a_twentieth_of_all_heads_and_the_seed_decides_the_split() -> None:
    positive, negative = sets(4)
    first, again, other = (
        fit_iti_heads(positive, negative, name="h", num_heads=HEADS, seed=seed)
        for seed in (0, 0, 1)
    )
    assert len(first.provenance["heads"]) == 1
    assert first.provenance["accuracies"] == again.provenance["accuracies"]
    assert first.digest == again.digest
    assert first.provenance["accuracies"] != other.provenance["accuracies"]


def test_a_head_without_a_difference_is_never_selected() -> None:
    positive, negative = sets(5)
    positive[4][:, :HEAD_DIM] = negative[4][:, :HEAD_DIM]
    with pytest.raises(InvalidFieldError, match="expected 1 to 11") as caught:
        fit_iti_heads(positive, negative, name="h", num_heads=HEADS, top_k=12)
    assert caught.value.param == "top_k"
    direction = fit_iti_heads(positive, negative, name="h", num_heads=HEADS, top_k=11)
    assert not direction.at(4)["vector"][:HEAD_DIM].any()
    with pytest.raises(FitError, match="no head's means differ"):
        fit_iti_heads(positive, positive, name="h", num_heads=HEADS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "divisor of the width 24"),
        ({"num_heads": 0}, "divisor"),
        ({"validation": 1.0}, "validation is 1"),
        ({"site": Site.RESID_POST}, "expected 'heads'"),
        ({"top_k": 0}, "top_k is 0"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    positive, negative = sets(6, num_samples=10)
    with pytest.raises(InvalidFieldError, match=message):
        fit_iti_heads(positive, negative, name="h", **({"num_heads": HEADS} | options))


def test_too_few_samples_to_hold_any_out() -> None:
    positive, negative = sets(7, num_samples=7)
    with pytest.raises(FitError, match="7 samples leave 1 to validate and 6 to fit") as caught:
        fit_iti_heads(positive, negative, name="h", num_heads=HEADS)
    assert caught.value.param == "validation"
