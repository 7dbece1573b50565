"""A folded weight gives what the edit makes of the weight's output, bias included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from steering.directions import DirectionKind
from steering.documents import Intervention, PositionContext
from steering.plan import Steer, compile_plan
from steering.sites import Site, SitePoint
from steering.weights import (
    GainedEdit,
    amplify,
    edits_by_point,
    fold_bias,
    fold_weight,
    orthogonalize,
    rosi,
)
from steering.weights.fold import is_affine, needs_bias
from tests.steering.oracle import steer_tokens
from tests.steering.samples import make_direction, make_spec

SPEC = make_spec(num_layers=1)
POINT = SitePoint(0, Site.MLP_OUT)
D, D_IN = SPEC.hidden_size, 24
RNG = torch.Generator().manual_seed(5)
W = torch.randn(D, D_IN, generator=RNG, dtype=torch.float64)
X = torch.randn(7, D_IN, generator=RNG, dtype=torch.float64)
# its mean is the one the specification tells
BIAS = torch.randn(D, generator=RNG, dtype=torch.float64)
BIAS += SPEC.write_bias_means[POINT] - BIAS.mean()

VECTOR, BASIS, PROBE = DirectionKind.VECTOR, DirectionKind.BASIS, DirectionKind.PROBE


def steer(kind: DirectionKind, operation: str, **fields: Any) -> Steer:
    direction = make_direction(kind, Site.MLP_OUT, (0,), SPEC, seed=3)
    document = {"operation": operation, "direction": direction.reference, **fields}
    return Steer(Intervention.from_dict(document), direction)


def folded(*steers: Steer) -> tuple[Tensor, Tensor]:
    edits = edits_by_point(compile_plan(steers, [], SPEC), {POINT})[POINT]
    return fold_weight(W, edits), fold_bias(BIAS, edits)


AFFINE = {
    "rank_one": steer(VECTOR, "rank_one", strength=2.0),
    "ablate": steer(VECTOR, "ablate"),
    "amplify": steer(VECTOR, "ablate", strength=-0.5),
    "ablate_reference": steer(VECTOR, "ablate", reference=0.7),
    "ablate_stored": steer(BASIS, "ablate", reference="stored"),
    "ablate_basis": steer(BASIS, "ablate", strength=0.8),
    "ablate_probe": steer(PROBE, "ablate"),
    "add": steer(VECTOR, "add", strength=1.5),
    "add_dose": steer(VECTOR, "add", unit="resid"),
    "set": steer(VECTOR, "set", value=0.4),
    "transport": steer(DirectionKind.TRANSPORT, "transport", shape_strength=0.7),
    "diagonal": steer(DirectionKind.DIAGONAL, "diagonal", strength=0.6),
    "rotate": steer(DirectionKind.PLANE, "rotate", angle=40.0),
}


@pytest.mark.parametrize("names", [*((name,) for name in AFFINE), tuple(AFFINE)], ids="-".join)
def test_the_folded_weight_gives_the_edited_output(names: tuple[str, ...]) -> None:
    steers = [AFFINE[name] for name in names]
    weight, bias = folded(*steers)
    y = X @ W.T + BIAS
    expected = steer_tokens(y, steers, POINT, SPEC, 0, PositionContext(3))
    torch.testing.assert_close(X @ weight.T + bias, expected, atol=1e-4, rtol=1e-5)


def test_the_methods_under_their_own_names() -> None:
    direction = AFFINE["rank_one"].direction.at(0)["vector"]
    torch.testing.assert_close(
        folded(AFFINE["rank_one"])[0], rosi(W, direction, 2.0), atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(
        folded(AFFINE["ablate"])[0], orthogonalize(W, direction), atol=1e-6, rtol=1e-6
    )
    weight, bias = folded(AFFINE["amplify"])
    torch.testing.assert_close(weight, amplify(W, direction, 0.5), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        bias[:, None], amplify(BIAS[:, None], direction, 0.5), atol=1e-6, rtol=1e-6
    )


def test_rank_one_leaves_the_bias() -> None:
    torch.testing.assert_close(folded(AFFINE["rank_one"])[1], BIAS, atol=1e-7, rtol=0)


def test_nothing_given_is_changed() -> None:
    before = W.clone(), BIAS.clone()
    folded(*AFFINE.values())
    assert torch.equal(W, before[0])
    assert torch.equal(BIAS, before[1])


def test_columns_are_folded_each_for_itself() -> None:
    edits = edits_by_point(compile_plan([AFFINE["ablate_basis"]], [], SPEC), ())[POINT]
    whole = fold_weight(W, edits)
    torch.testing.assert_close(fold_weight(W[:, 5:9], edits), whole[:, 5:9])
    stack = torch.stack([W, W.flip(1)])
    torch.testing.assert_close(fold_weight(stack, edits)[1], fold_weight(stack[1], edits))


@pytest.mark.parametrize(
    ("chosen", "affine", "constant"),
    [
        (AFFINE["rank_one"], True, True),  # mean(c) is taken out
        (AFFINE["ablate"], True, False),
        (AFFINE["ablate_reference"], True, True),
        (AFFINE["add"], True, True),
        (AFFINE["rotate"], True, False),
        (steer(VECTOR, "clamp", minimum=0.0), False, False),
        (steer(DirectionKind.PLANE, "rotate_to", angle=10.0), False, False),
        (steer(VECTOR, "ablate", restore_norm=True), False, False),
    ],
    ids=lambda value: (
        value.intervention.operation.value if isinstance(value, Steer) else str(value)
    ),
)
def test_what_an_edit_needs_is_known(chosen: Steer, affine: bool, constant: bool) -> None:
    [item] = compile_plan([chosen], [], SPEC).interventions
    edit = GainedEdit(item.edits[0].edit, 1.0).edit
    assert is_affine(edit) is affine
    assert needs_bias(edit) is constant
