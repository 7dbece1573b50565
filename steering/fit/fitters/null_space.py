"""A push that ordinary activations hardly receive."""

from __future__ import annotations

import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError, ShapeMismatchError
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction, require_gap
from steering.fit.options import OpenUnitInterval, Positive, check_number
from steering.sites import Site


def fit_null_space(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    target: Tensor | None = None,
    null_ratio: OpenUnitInterval = 0.5,
    ridge: Positive = 10.0,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """h' = h + s (h . g) r: about s r where h is like positive, about nothing where like negative.

        P = projector on the directions in which negative has least energy
        g = P X^T (X X^T + ridge I)^-1 1,  X = positive P

    positive [N, d] are the activations to push, negative [M, d] those to leave alone, any float
    dtype. g is the ridge solution of X g = 1 within the null space. Activations are not centred:
    the map is linear. Kind `transport` with V = g / |g| [1, d], m = 0, C = |g| r, b = 0.

    The per-token, causal form. The published code reads the last prompt token and pushes every
    prompt token with it, which looks ahead and cannot be cached by prefix.

    Args:
        positive: Activations to push.
        negative: Activations to leave alone; use many, thousands in the paper.
        name: Name of the direction.
        layer: Where the activations were taken.
        target: r [d]; None takes mean(positive) - mean(negative).
        null_ratio: Share of the d directions in the null space, in (0, 1); those that negative
            does not span always are.
        ridge: Regularisation, in squared units of the activation.
        site: Where the activations were taken.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: Positive lies within the span of negative, so that nothing can tell it apart.
        InvalidFieldError: A number outside its range.
        SteeringError: Tensors that are not finite or not of one width.

    Source: AlphaSteer, arXiv:2506.07022.
    """
    check_number(OpenUnitInterval, null_ratio, "null_ratio")
    check_number(Positive, ridge, "ridge")
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    push = _push(pair, target)
    kept = _main_axes(pair.source, null_ratio)
    read, share = _read(pair.target, kept, ridge)
    length = read.norm()
    gates = {"positive": pair.target @ read, "negative": pair.source @ read}
    return fitted_direction(
        DirectionKind.TRANSPORT,
        pair,
        {
            "basis": (read / length)[None],
            "offset": torch.zeros(1),
            "map": (length * push)[None],
            "shift": torch.zeros_like(push),
        },
        method="null_space",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        null_ratio=null_ratio,
        ridge=ridge,
        null_dimensions=int(kept.shape[1] - len(kept)),
        share_in_null_space=share,
        mean_gate={key: float(gate.mean()) for key, gate in gates.items()},
        largest_gate={key: float(gate.abs().max()) for key, gate in gates.items()},
    )


def _read(positive: Tensor, kept: Tensor, ridge: float) -> tuple[Tensor, float]:
    """g [d], and the share of positive's length that lies in the null space of `kept`."""
    inside = positive - (positive @ kept.T) @ kept
    share = float(inside.norm() / positive.norm())
    if share < 1e-6:
        raise FitError(
            f"{share:.1e} of positive lies outside the main directions of negative; raise "
            "null_ratio, or use 'mean_difference'",
            param="null_ratio",
        )
    gram = inside @ inside.T + ridge * torch.eye(len(inside), dtype=inside.dtype)
    return inside.T @ torch.linalg.solve(gram, torch.ones(len(inside), dtype=inside.dtype)), share


def _push(pair: ActivationPair, target: Tensor | None) -> Tensor:
    if target is None:
        require_gap(pair)
        return pair.shift
    push = target.detach().to("cpu", torch.float64)
    if push.shape != pair.shift.shape:
        raise ShapeMismatchError(
            f"target has shape {list(push.shape)}; expected {list(pair.shift.shape)}",
            param="target",
        )
    if not float(push.norm()) >= MIN_NORM:
        raise FitError(
            f"target has norm {float(push.norm()):.3g}; expected at least {MIN_NORM:g}",
            param="target",
        )
    return push


def _main_axes(rows: Tensor, null_ratio: float) -> Tensor:
    """Orthonormal rows spanning the (1 - null_ratio) d directions of most energy, or fewer."""
    width = rows.shape[1]
    _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
    floor = float(singular[0]) * max(rows.shape) * torch.finfo(rows.dtype).eps
    spanned = int((singular > floor).sum())
    main: Tensor = axes[: min(spanned, width - int(width * null_ratio))]
    return main
