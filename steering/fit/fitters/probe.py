"""A linear classifier of activations."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction
from steering.fit.options import Positive, PositiveInteger, check_number
from steering.fit.separation import FloatArray
from steering.sites import Site

_MAX_SLOPE: Final = 1e-5


def fit_probe(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    l2: Positive = 1.0,
    balance: bool = True,
    max_iterations: PositiveInteger = 1000,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """Log-odds of positive: h . weight + bias, by logistic regression on standardised features.

    positive [N, d], negative [M, d], any float dtype. Each feature is standardised on both sets
    together, and mean and scale are folded into weight and bias, so that the probe reads raw
    activations. It is trained where it reads: on other positions or layers its scores are out of
    distribution.

    Args:
        positive: Activations of the class the score rises for.
        negative: Activations of the other.
        name: Name of the direction.
        layer: Where the activations were taken.
        l2: Weight of |w|^2 / 2 on standardised features against the *sum* of losses (1 / C of
            scikit-learn). With fewer samples than features it decides how far the weight is from
            the difference in means (large) or a maximal margin (small).
        balance: Whether the two sets count the same whatever their sizes; without, the bias holds
            the log ratio of the counts.
        max_iterations: Bound of L-BFGS.
        site: Where the activations were taken.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: No convergence, or sets that no direction tells apart.
        InvalidFieldError: A number outside its range.
        SteeringError: Tensors that are not two finite matrices of one width.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    weight, bias, iterations = logistic_regression(
        pair, l2=l2, balance=balance, max_iterations=max_iterations
    )
    if float(weight.norm()) < MIN_NORM:
        raise FitError(
            f"the probe's weight has norm {float(weight.norm()):.3g}; the sets are not told apart",
            param="positive",
        )
    hits = [
        (rows @ weight + bias) * sign > 0 for rows, sign in ((pair.target, 1), (pair.source, -1))
    ]
    return fitted_direction(
        DirectionKind.PROBE,
        pair,
        {"weight": weight, "bias": bias},
        method="probe",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        l2=l2,
        balance=balance,
        iterations=iterations,
        training_accuracy=sum(float(hit.to(torch.float64).mean()) for hit in hits) / 2,
    )


def logistic_regression(
    pair: ActivationPair, *, l2: float = 1.0, balance: bool = True, max_iterations: int = 1000
) -> tuple[Tensor, Tensor, int]:
    """weight [d], bias [1] (float64, on raw features) and the iterations taken.

    Raises:
        FitError: No convergence.
        InvalidFieldError: `l2` or `max_iterations` not positive.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    check_number(Positive, l2, "l2")
    check_number(PositiveInteger, max_iterations, "max_iterations")
    rows = torch.cat([pair.source, pair.target]).numpy()
    labels = np.repeat([0, 1], [len(pair.source), len(pair.target)])
    scaler = StandardScaler().fit(rows)
    model: Any = LogisticRegression(
        C=1.0 / l2, class_weight="balanced" if balance else None, max_iter=max_iterations, tol=1e-8
    )
    slope = _fit(model, scaler.transform(rows), labels, l2)
    iterations = int(model.n_iter_[0])
    if slope > _MAX_SLOPE:
        raise FitError(
            f"logistic regression did not converge in {iterations} iterations (gradient "
            f"{slope:.1e}); raise l2 or max_iterations",
            param="max_iterations",
        )
    weight = torch.from_numpy(model.coef_[0] / scaler.scale_)
    bias = torch.from_numpy(model.intercept_) - weight @ torch.from_numpy(scaler.mean_)
    return weight, bias, iterations


def _fit(model: Any, rows: FloatArray, labels: Any, l2: float) -> float:
    """Fit, and the largest entry of the gradient per sample where it ended.

    The library warns where its search stops early, also at the minimum to all digits there are;
    the gradient tells which.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.class_weight import compute_sample_weight

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, labels)
    weights = compute_sample_weight(model.class_weight, labels)
    errors = weights * (model.predict_proba(rows)[:, 1] - labels)
    gradient = np.r_[errors @ rows + l2 * model.coef_[0], errors.sum()]
    return float(np.abs(gradient).max() / len(rows))
