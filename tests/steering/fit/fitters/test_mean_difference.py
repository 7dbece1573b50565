from __future__ import annotations

import numpy as np
import pytest
import torch

from steering.directions import DirectionKind
from steering.errors import FitError, NonFiniteError, ShapeMismatchError, SteeringError
from steering.fit import ActivationPair
from steering.fit.fitters.means import fit_mean_difference
from steering.sites import Site

from .gaussians import samples

GENERATOR = np.random.default_rng(0)
POSITIVE = torch.from_numpy(samples(GENERATOR, 50, scales=np.ones(6), mean=2.0))
NEGATIVE = torch.from_numpy(samples(GENERATOR, 70, scales=np.ones(6), mean=-1.0))


def test_vector_is_the_difference_and_reference_the_negative_mean() -> None:
    direction = fit_mean_difference(
        POSITIVE, NEGATIVE, name="v", layer=4, site=Site.MLP_OUT, model_fingerprint="f"
    )
    tensors = direction.at(4)
    expected = POSITIVE.mean(0) - NEGATIVE.mean(0)
    torch.testing.assert_close(tensors["vector"], expected.to(torch.float32))
    torch.testing.assert_close(
        tensors["reference"] + tensors["vector"], POSITIVE.mean(0).to(torch.float32)
    )
    assert (direction.kind, direction.site, direction.layers) == (
        DirectionKind.VECTOR,
        Site.MLP_OUT,
        (4,),
    )
    assert direction.model_fingerprint == "f"
    assert (direction.provenance["num_positive"], direction.provenance["num_negative"]) == (50, 70)


def test_means_are_taken_in_float64() -> None:
    huge = torch.full((10_000, 1), 4096.0, dtype=torch.float16) + torch.eye(1).to(torch.float16)
    direction = fit_mean_difference(huge + 4, huge, name="v", layer=0)
    assert direction.at(0)["vector"].item() == pytest.approx(4.0, abs=1e-3)


def test_separation_is_d_prime_along_the_vector() -> None:
    direction = fit_mean_difference(POSITIVE, NEGATIVE, name="v", layer=0)
    unit = (POSITIVE.mean(0) - NEGATIVE.mean(0)).numpy()
    unit /= np.linalg.norm(unit)
    plus, minus = POSITIVE.numpy() @ unit, NEGATIVE.numpy() @ unit
    expected = (plus.mean() - minus.mean()) / np.sqrt((plus.var(ddof=1) + minus.var(ddof=1)) / 2)
    assert direction.provenance["separation"] == pytest.approx(expected)
    spreadless = fit_mean_difference(torch.ones(2, 3), torch.zeros(2, 3), name="v", layer=0)
    assert spreadless.provenance["separation"] is None


def test_data_hash_depends_on_content_order_and_role_but_not_on_dtype() -> None:
    def digest(source: torch.Tensor, target: torch.Tensor) -> str:
        return ActivationPair.of(source, target, names=("a", "b")).digest

    coarse = POSITIVE.to(torch.float16)
    assert digest(coarse, NEGATIVE) == digest(coarse.to(torch.float32), NEGATIVE)
    others = {
        digest(POSITIVE, NEGATIVE),
        digest(NEGATIVE, POSITIVE),
        digest(POSITIVE.flip(0), NEGATIVE),
        digest(POSITIVE[:-1], NEGATIVE),
    }
    assert len(others) == 4


@pytest.mark.parametrize(
    ("positive", "negative", "error", "param"),
    [
        (torch.ones(3), torch.ones(3, 3), ShapeMismatchError, "positive"),
        (torch.ones(3, 3), torch.ones(3, 0), ShapeMismatchError, "negative"),
        (torch.ones(3, 3), torch.ones(3, 4), ShapeMismatchError, "positive"),
        (torch.ones(1, 3), torch.ones(3, 3), FitError, "positive"),
        (torch.ones(3, 3), torch.ones(0, 3), FitError, "negative"),
        (torch.ones(3, 3), torch.full((3, 3), torch.nan), NonFiniteError, "negative"),
        (torch.ones(3, 3), torch.ones(4, 3), FitError, "positive"),
    ],
)
def test_unusable_data_is_named(
    positive: torch.Tensor, negative: torch.Tensor, error: type[SteeringError], param: str
) -> None:
    with pytest.raises(error) as caught:
        fit_mean_difference(positive, negative, name="v", layer=0)
    assert caught.value.param == param
