from __future__ import annotations

import numpy as np
import pytest
import torch

from steering.errors import FitError
from steering.fit.fitters.means import fit_mean_centring, fit_mean_difference

from .apply_direction import apply_direction
from .gaussians import samples

GENERATOR = np.random.default_rng(0)
OFFSET = np.full(8, 6.0)
CONCEPT = np.r_[0, 2.0, np.zeros(6)]
WANTED = samples(GENERATOR, 200, scales=np.ones(8), mean=OFFSET + CONCEPT)
BACKGROUND = samples(GENERATOR, 900, scales=np.ones(8), mean=OFFSET)


def test_the_background_takes_away_where_everything_points() -> None:
    direction = fit_mean_centring(
        torch.from_numpy(WANTED), torch.from_numpy(BACKGROUND), name="v", layer=1
    )
    found = direction.at(1)["vector"].numpy()
    assert found @ CONCEPT / np.linalg.norm(found) / np.linalg.norm(CONCEPT) > 0.98
    raw = WANTED.mean(axis=0)
    assert raw @ CONCEPT / np.linalg.norm(raw) / np.linalg.norm(CONCEPT) < 0.6
    assert direction.provenance["background_cosine"] > 0.95
    assert direction.provenance["remaining_length"] == pytest.approx(
        np.linalg.norm(found) / np.linalg.norm(raw), rel=1e-5
    )
    assert "reference" not in direction.tensors


def test_it_is_the_difference_in_means_under_another_name() -> None:
    sets = (torch.from_numpy(WANTED), torch.from_numpy(BACKGROUND))
    centred, plain = (
        fit(*sets, name="v", layer=1) for fit in (fit_mean_centring, fit_mean_difference)
    )
    assert torch.equal(centred.at(1)["vector"], plain.at(1)["vector"])
    assert centred.provenance["method"] == "mean_centring"
    moved = apply_direction(centred, BACKGROUND, "add")
    np.testing.assert_allclose(moved.mean(axis=0), WANTED.mean(axis=0), atol=1e-5)


def test_a_background_of_the_same_mean_leaves_nothing() -> None:
    same = torch.ones(4, 3)
    with pytest.raises(FitError, match="differ by 0"):
        fit_mean_centring(same, same, name="v", layer=1)
