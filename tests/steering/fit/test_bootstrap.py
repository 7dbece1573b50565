from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from steering.errors import InvalidFieldError
from steering.fit import bootstrap_cosine, bootstrap_separation, measure_separation
from steering.fit.fitters.probe import fit_probe

AXIS = torch.eye(6, dtype=torch.float64)[0]


def sets(num_samples: int, seed: int, gap: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    positive, negative = generator.standard_normal((2, num_samples, 6))
    positive[:, 0] += gap
    return torch.from_numpy(positive), torch.from_numpy(negative)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = float(norm.cdf(1 / 2**0.5))
    hits = {"auc": 0, "d_prime": 0}
    for seed in range(60):
        found = bootstrap_separation(AXIS, *sets(60, seed), num_resamples=200, level=0.9)
        hits["auc"] += found["auc"].low <= truth <= found["auc"].high
        hits["d_prime"] += found["d_prime"].low <= 1.0 <= found["d_prime"].high
    # 54 of 60 expected; 46 and 60 are about 3.5 and 2.5 standard deviations off.
    assert all(46 <= count <= 60 for count in hits.values()), hits


def test_values_are_those_of_the_whole_sample_and_more_data_narrow_the_interval() -> None:
    widths = []
    for num_samples in (30, 1000):
        positive, negative = sets(num_samples, 0)
        found = bootstrap_separation(AXIS, positive, negative, num_resamples=200)
        whole = measure_separation(AXIS, positive, negative)
        assert found["auc"].value == pytest.approx(whole.auc)
        assert found["d_prime"].value == pytest.approx(whole.d_prime)
        assert found["auc"].low <= found["auc"].value <= found["auc"].high
        assert (found["auc"].level, found["auc"].num_resamples) == (0.95, 200)
        widths.append(found["auc"].high - found["auc"].low)
    assert widths[1] < widths[0] / 3


def test_perfect_separation_is_an_interval_of_one_point() -> None:
    found = bootstrap_separation(AXIS, *sets(20, 0, gap=50.0), num_resamples=50)
    assert (found["auc"].low, found["auc"].high) == (1.0, 1.0)
    flat = bootstrap_separation(AXIS, torch.ones(3, 6), torch.zeros(3, 6), num_resamples=20)
    assert set(flat) == {"auc"}


def test_a_seed_gives_the_same_numbers() -> None:
    positive, negative = sets(30, 1)
    first, again, other = (
        bootstrap_separation(AXIS, positive, negative, num_resamples=100, seed=seed)
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other
    cosines = [
        bootstrap_cosine(positive, negative, num_resamples=30, seed=seed) for seed in (3, 3, 4)
    ]
    assert cosines[0] == cosines[1] != cosines[2]


def test_a_direction_settled_by_the_data_stays_and_noise_turns() -> None:
    firm = bootstrap_cosine(*sets(200, 2, gap=5.0), num_resamples=50)
    loose = bootstrap_cosine(*sets(200, 2, gap=0.0), num_resamples=50)
    assert firm.low > 0.99
    assert loose.value < 0.9
    assert firm.low <= firm.value <= firm.high <= 1.0 + 1e-12


def test_cosine_of_a_difference_in_means_is_as_theory_says() -> None:
    """|D|^2 over |D|^2 plus the noise of a resample, d (1/n + 1/n) of each set's variance."""
    positive, negative = sets(100, 3, gap=1.0)
    gap = positive.mean(dim=0) - negative.mean(dim=0)
    spreads = [rows.var(dim=0, correction=0).sum() / len(rows) for rows in (positive, negative)]
    noise = float(sum(spreads))
    expected = float(gap.norm() / (gap.norm() ** 2 + noise) ** 0.5)
    found = bootstrap_cosine(positive, negative, num_resamples=400)
    assert found.value == pytest.approx(expected, abs=0.01)


def test_any_method_that_gives_a_vector_can_be_resampled() -> None:
    def weight(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        return fit_probe(positive, negative, name="p", layer=0).at(0)["weight"]

    found = bootstrap_cosine(*sets(60, 4, gap=3.0), fit=weight, num_resamples=10)
    assert 0.8 < found.value <= 1.0


@pytest.mark.parametrize("options", [{"num_resamples": 1}, {"level": 1.0}, {"level": 0.0}])
def test_numbers_out_of_range(options: dict[str, float]) -> None:
    for measure in (
        lambda: bootstrap_separation(AXIS, *sets(5, 0), **options),  # type: ignore[arg-type]
        lambda: bootstrap_cosine(*sets(5, 0), **options),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidFieldError) as caught:
            measure()
        assert caught.value.param == next(iter(options))
