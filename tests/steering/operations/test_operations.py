"""What each operation promises, as properties of its result."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, PositionContext
from steering.errors import (
    IncompatibleOperationError,
    InvalidFieldError,
    NormTooLargeError,
    SiteUnavailableError,
    SteeringError,
)
from steering.plan import Steer, compile_plan
from steering.runtime import SteeringRuntime, StepRow
from steering.sites import Site, SitePoint
from tests.steering.samples import make_direction, make_spec

SPEC = make_spec()
POINT = SitePoint(1, Site.RESID_POST)


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(8, SPEC.hidden_size, generator=torch.Generator().manual_seed(0))


def apply(hidden: Tensor, *steers: Steer, point: SitePoint = POINT) -> Tensor:
    plan = compile_plan(steers, [], SPEC)
    runtime = SteeringRuntime(3, dict.fromkeys(range(3), torch.device("cpu")), 16)
    runtime.acquire(plan)
    runtime.begin_step([StepRow(plan, 0, len(hidden), PositionContext(len(hidden)))])
    return runtime.edit(point, hidden)


def use(direction: Direction, operation: str, **fields: Any) -> Steer:
    document = {"operation": operation, "direction": direction.reference, **fields}
    return Steer(Intervention.from_dict(document), direction)


def single(kind: DirectionKind, site: Site = Site.RESID_POST, **tensors: Tensor) -> Direction:
    return Direction("test", kind, site, (1,), tensors, version=1)


def vector(seed: int = 1) -> Direction:
    return make_direction(DirectionKind.VECTOR, Site.RESID_POST, (1,), SPEC, seed)


def unit(direction: Direction) -> Tensor:
    v = direction.at(1)["vector"]
    return v / v.norm()


def test_strength_zero_is_identity(hidden: Tensor) -> None:
    assert torch.equal(apply(hidden, use(vector(), "add", strength=0.0)), hidden)


def test_add_is_linear_in_strength(hidden: Tensor) -> None:
    v = vector()
    once = apply(hidden, use(v, "add", strength=1.0)) - hidden
    thrice = apply(hidden, use(v, "add", strength=3.0)) - hidden
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-5, atol=1e-5)


def test_add_with_unit_resid_is_a_dose(hidden: Tensor) -> None:
    moved = apply(hidden, use(vector(), "add", unit="resid", strength=0.5)) - hidden
    expected = torch.full((8,), 0.5 * SPEC.resid_norms[POINT])
    torch.testing.assert_close(moved.norm(dim=1), expected, rtol=1e-5, atol=1e-5)


def test_ablate_removes_the_component_and_is_idempotent(hidden: Tensor) -> None:
    v = vector()
    once = apply(hidden, use(v, "ablate"))
    assert float((once @ unit(v)).abs().max()) < 1e-5
    torch.testing.assert_close(apply(once, use(v, "ablate")), once, rtol=1e-5, atol=1e-5)


def test_ablate_of_a_basis_removes_its_whole_span(hidden: Tensor) -> None:
    basis = make_direction(DirectionKind.BASIS, Site.RESID_POST, (1,), SPEC, 4)
    left = apply(hidden, use(basis, "ablate")) @ basis.at(1)["basis"].T
    assert float(left.abs().max()) < 1e-4


def test_ablate_leaves_the_reference_and_then_add_is_affine_concept_editing(
    hidden: Tensor,
) -> None:
    v = vector()
    reference = v.at(1)["reference"]
    edited = apply(hidden, use(v, "ablate", reference="stored"), use(v, "add", strength=0.7))
    u, r = unit(v), v.at(1)["vector"]
    ace = hidden - torch.outer(hidden @ u, u) + (reference @ u) * u + 0.7 * r
    torch.testing.assert_close(edited, ace, rtol=1e-5, atol=1e-5)


def test_ablate_needs_the_reference_it_names() -> None:
    bare = single(DirectionKind.VECTOR, vector=torch.ones(16))
    with pytest.raises(InvalidFieldError, match="holds no tensor 'reference'") as caught:
        compile_plan([use(bare, "ablate", reference="stored")], [], SPEC)
    assert caught.value.param == "interventions[0].reference"


def test_set_fixes_the_projection(hidden: Tensor) -> None:
    v = vector()
    projections = apply(hidden, use(v, "set", value=-2.5)) @ unit(v)
    torch.testing.assert_close(projections, torch.full((8,), -2.5), rtol=1e-5, atol=1e-5)


def test_clamp_bounds_the_projection_and_nothing_else(hidden: Tensor) -> None:
    v = vector()
    before = hidden @ unit(v)
    after = apply(hidden, use(v, "clamp", minimum=-0.5, maximum=0.25))
    torch.testing.assert_close(after @ unit(v), before.clamp(-0.5, 0.25), rtol=1e-5, atol=1e-5)
    inside = (before > -0.5) & (before < 0.25)
    torch.testing.assert_close(after[inside], hidden[inside], rtol=1e-6, atol=1e-6)


def test_one_sided_clamp(hidden: Tensor) -> None:
    v = vector()
    after = apply(hidden, use(v, "clamp", maximum=0.0)) @ unit(v)
    torch.testing.assert_close(after, (hidden @ unit(v)).clamp(max=0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 37.0, 180.0, -90.0])
def test_rotate_keeps_the_norm_and_inverts(hidden: Tensor, angle: float) -> None:
    plane = make_direction(DirectionKind.PLANE, Site.RESID_POST, (1,), SPEC, 5)
    turned = apply(hidden, use(plane, "rotate", angle=angle))
    torch.testing.assert_close(turned.norm(dim=1), hidden.norm(dim=1), rtol=1e-5, atol=1e-5)
    back = apply(turned, use(plane, "rotate", angle=-angle))
    torch.testing.assert_close(back, hidden, rtol=1e-5, atol=1e-5)


def test_rotate_to_reaches_its_angle_keeps_the_norm_and_is_idempotent(hidden: Tensor) -> None:
    axes = torch.eye(16)[:2]
    plane = single(DirectionKind.PLANE, basis=axes)
    turned = apply(hidden, use(plane, "rotate_to", angle=60.0))
    torch.testing.assert_close(turned.norm(dim=1), hidden.norm(dim=1), rtol=1e-5, atol=1e-5)
    angles = torch.rad2deg(torch.atan2(turned[:, 1], turned[:, 0]))
    torch.testing.assert_close(angles, torch.full((8,), 60.0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(turned[:, 2:], hidden[:, 2:])
    again = apply(turned, use(plane, "rotate_to", angle=60.0))
    torch.testing.assert_close(again, turned, rtol=1e-5, atol=1e-5)


def test_scale_heads_restores_the_norm_unless_told_not_to() -> None:
    heads = single(DirectionKind.HEADS, Site.HEADS, scale=torch.tensor([0.0, 1.0, 1.0, 1.0]))
    z, point = torch.randn(6, 16), SitePoint(1, Site.HEADS)
    plain = apply(z, use(heads, "scale_heads", restore_norm=False), point=point)
    assert torch.equal(plain[:, :4], torch.zeros(6, 4))
    assert torch.equal(plain[:, 4:], z[:, 4:])
    restored = apply(z, use(heads, "scale_heads"), point=point)
    torch.testing.assert_close(restored.norm(dim=1), z.norm(dim=1), rtol=1e-5, atol=1e-5)


def test_rank_one_equals_the_published_weight_edit() -> None:
    weight, bias, x = torch.randn(16, 24), torch.randn(16), torch.randn(5, 24)
    v, alpha = torch.randn(16), 0.8
    means = {SitePoint(1, Site.MLP_OUT): float(bias.mean())}
    spec = dataclasses.replace(make_spec(), write_bias_means=means)
    direction = single(DirectionKind.VECTOR, Site.MLP_OUT, vector=v)
    plan = compile_plan([use(direction, "rank_one", strength=alpha)], [], spec)
    runtime = SteeringRuntime(3, dict.fromkeys(range(3), torch.device("cpu")), 16)
    runtime.acquire(plan)
    runtime.begin_step([StepRow(plan, 0, 5, PositionContext(5))])
    got = runtime.edit(SitePoint(1, Site.MLP_OUT), x @ weight.T + bias)
    edited = weight + alpha * torch.outer(v / v.norm(), weight.mean(dim=0))
    torch.testing.assert_close(got, x @ edited.T + bias, rtol=1e-4, atol=1e-4)


def test_rank_one_is_refused_where_each_expert_has_a_bias() -> None:
    direction = make_direction(DirectionKind.VECTOR, Site.MLP_OUT, (1,), SPEC, 1)
    spec = dataclasses.replace(
        SPEC, write_bias_means={SitePoint(layer, Site.MLP_OUT): None for layer in range(9)}
    )
    with pytest.raises(SiteUnavailableError, match="experts of this model have a bias each"):
        compile_plan([use(direction, "rank_one")], [], spec)


def test_rank_one_is_refused_where_no_matrix_writes() -> None:
    with pytest.raises(SiteUnavailableError, match="'attn_out', 'mlp_out' or 'embed'"):
        compile_plan([use(vector(), "rank_one")], [], SPEC)


def test_transport_interpolates_between_identity_and_the_map(hidden: Tensor) -> None:
    transport = make_direction(DirectionKind.TRANSPORT, Site.RESID_POST, (1,), SPEC, 6)
    whole = apply(hidden, use(transport, "transport")) - hidden
    half = apply(hidden, use(transport, "transport", strength=0.5)) - hidden
    torch.testing.assert_close(half, whole / 2, rtol=1e-5, atol=1e-5)
    mean_only = apply(hidden, use(transport, "transport", shape_strength=0.0)) - hidden
    torch.testing.assert_close(mean_only, transport.at(1)["shift"].expand(8, -1))


def test_diagonal_maps_each_coordinate(hidden: Tensor) -> None:
    diagonal = make_direction(DirectionKind.DIAGONAL, Site.RESID_POST, (1,), SPEC, 7)
    tensors = diagonal.at(1)
    expected = tensors["scale"] * hidden + tensors["shift"]
    torch.testing.assert_close(apply(hidden, use(diagonal, "diagonal")), expected)


def test_restored_norm_keeps_the_length_of_any_edit(hidden: Tensor) -> None:
    moved = apply(hidden, use(vector(), "add", strength=4.0, restore_norm=True))
    torch.testing.assert_close(moved.norm(dim=1), hidden.norm(dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", ["transport", "rotate", "scale_heads", "diagonal"])
def test_operations_refuse_other_kinds(operation: str) -> None:
    fields = {"angle": 10.0} if operation == "rotate" else {}
    with pytest.raises(IncompatibleOperationError, match="is of kind 'vector'"):
        compile_plan([use(vector(), operation, **fields)], [], SPEC)


def test_dependent_rows_have_no_plane() -> None:
    flat = single(DirectionKind.PLANE, basis=torch.ones(2, 16))
    with pytest.raises(InvalidFieldError, match="linearly dependent"):
        compile_plan([use(flat, "rotate", angle=5.0)], [], SPEC)


@pytest.mark.parametrize("strength", [1e38, -3e38, 1e4])
def test_strength_that_drowns_the_model_is_refused(strength: float) -> None:
    big = single(DirectionKind.VECTOR, vector=torch.full((16,), 100.0))
    with pytest.raises(NormTooLargeError, match="moves activations by") as caught:
        compile_plan([use(big, "add", strength=strength)], [], SPEC)
    assert caught.value.param == "interventions[0].strength"


def test_errors_name_the_intervention_at_fault() -> None:
    steers = [use(vector(), "add"), use(vector(), "add", layers=[9])]
    with pytest.raises(SteeringError, match="layers 0 to 2") as caught:
        compile_plan(steers, [], SPEC)
    assert caught.value.param == "interventions[1].layers"
