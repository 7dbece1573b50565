"""Plans: gains by position, digests for the cache, and steering that would do nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.documents import DirectionRef, Intervention, Monitor, PositionContext
from steering.errors import (
    IncompatibleModelError,
    InvalidFieldError,
    LayerOutOfRangeError,
    NoEffectError,
    NotStoredThereError,
    ShapeMismatchError,
    SiteUnavailableError,
)
from steering.plan import MonitorUse, Steer, SteeringPlan, compile_plan
from steering.plan.plan import WARN_DOSE
from steering.runtime import SteeringRuntime
from steering.sites import Site, SitePoint
from tests.steering.samples import make_direction, make_spec

SPEC = make_spec()
VECTOR = Direction(
    "v", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.arange(1.0, 17.0)}, version=1
)


def plan_of(*documents: dict[str, Any], direction: Direction = VECTOR) -> SteeringPlan:
    steers = [
        Steer(Intervention.from_dict({"operation": "add", "direction": "v@1", **d}), direction)
        for d in documents
    ]
    return compile_plan(steers, [], SPEC)


@pytest.mark.parametrize(
    "scope",
    [
        {"tokens": "all"},
        {"tokens": "generated"},
        {"windows": [[2, 9]]},
        {"tokens": "last_prompt"},
        {"prompt_indices": [-2]},
    ],
)
@pytest.mark.parametrize("schedule", [{"kind": "constant"}, {"kind": "decay", "factor": 0.5}])
def test_gains_do_not_depend_on_chunks(scope: dict[str, Any], schedule: dict[str, Any]) -> None:
    plan = plan_of({"scope": scope, "schedule": schedule, "strength": 2.0})
    context = PositionContext(5)
    whole = plan.gains(0, 12, context)
    for cut in range(1, 12):
        parts = [plan.gains(0, cut, context), plan.gains(cut, 12, context)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_digest_is_empty_exactly_where_nothing_acts() -> None:
    plan = plan_of({"scope": {"tokens": "last_prompt"}})
    context = PositionContext(20)
    assert plan.block_digest(0, 16, context) == b""
    assert plan.block_digest(16, 32, context) != b""


def test_digest_follows_gains_not_profiles() -> None:
    """Where `last_prompt` falls decides the digest, and so does strength; names do not."""
    plan = plan_of({"scope": {"tokens": "last_prompt"}})
    stronger = plan_of({"scope": {"tokens": "last_prompt"}, "strength": 1.5})
    by_window = plan_of({"scope": {"windows": [[7, 8]]}})
    digests = [
        plan.block_digest(0, 16, PositionContext(8)),
        plan.block_digest(0, 16, PositionContext(9)),
        stronger.block_digest(0, 16, PositionContext(8)),
    ]
    assert len(set(digests)) == 3
    assert by_window.block_digest(0, 16, PositionContext(3)) == digests[0]


def test_digest_tells_order_apart() -> None:
    ablate = {"operation": "ablate"}
    context = PositionContext(16)
    one = plan_of({}, ablate).block_digest(0, 16, context)
    other = plan_of(ablate, {}).block_digest(0, 16, context)
    assert one != other


def test_repeated_interventions_keep_gains_of_their_own() -> None:
    plan = plan_of({}, {})
    assert len({item.key for item in plan.interventions}) == 2


def test_fingerprint_depends_on_strength_and_scope() -> None:
    plans = [plan_of({}), plan_of({"strength": 0.5}), plan_of({"scope": {"tokens": "prompt"}})]
    assert len({plan.fingerprint for plan in plans}) == 3
    assert plans[0].fingerprint == plan_of({}).fingerprint


@pytest.mark.parametrize(
    ("scope", "max_tokens", "acts"),
    [
        ({"tokens": "all"}, 1, True),
        ({"tokens": "generated"}, 1, False),  # the only generated token is never run
        ({"tokens": "generated"}, 2, True),
        ({"prompt_indices": [40]}, 8, False),
        ({"windows": [[0, 2]]}, 8, True),
        ({"tokens": "all", "exclude": {"tokens": "all"}}, 8, False),
        ({"tokens": "last_prompt"}, 0, False),  # scoring: the last token's logits are not returned
    ],
)
def test_steering_without_effect_is_refused(
    scope: dict[str, Any], max_tokens: int, acts: bool
) -> None:
    plan = plan_of({"scope": scope})

    def check() -> None:
        plan.check_effect(PositionContext(6), num_prompt_tokens=6, max_tokens=max_tokens)

    if acts:
        check()
    else:
        with pytest.raises(NoEffectError, match="selects no token") as caught:
            check()
        assert caught.value.param == "interventions[0].scope"


def test_early_tokens_at_the_end_of_the_last_layer_influence_nothing() -> None:
    plan = plan_of({"layers": [2], "scope": {"windows": [[0, 3]]}})
    check = {"num_prompt_tokens": 6, "max_tokens": 4}
    with pytest.raises(NoEffectError):
        plan.check_effect(PositionContext(6), **check)
    plan.check_effect(PositionContext(6), **check, returns_prompt_logits=True)


def test_a_short_answer_may_leave_part_of_a_profile_idle() -> None:
    plan = plan_of({"scope": {"tokens": "prompt"}}, {"scope": {"generated_windows": [[50, 60]]}})
    plan.check_effect(PositionContext(6), num_prompt_tokens=6, max_tokens=3)


def test_bound_directions_stay_where_they_were_stored() -> None:
    transport = make_direction(DirectionKind.TRANSPORT, Site.RESID_POST, (1,), SPEC, 3)
    document = {"operation": "transport", "direction": transport.reference, "layers": [0]}
    with pytest.raises(NotStoredThereError) as caught:
        compile_plan([Steer(Intervention.from_dict(document), transport)], [], SPEC)
    assert caught.value.param == "interventions[0].layers"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"layers": [0, 3]}, LayerOutOfRangeError),
        ({"layers": {"from": 0.01, "to": 0.02}}, LayerOutOfRangeError),
        ({"site": "final"}, SiteUnavailableError),
        ({"site": "embed", "layers": [1]}, LayerOutOfRangeError),
    ],
)
def test_places_the_model_does_not_have(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        plan_of(change)


def test_width_and_fingerprint_must_fit_the_model() -> None:
    wide = Direction("w", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.ones(17)})
    with pytest.raises(ShapeMismatchError, match="width 17"):
        plan_of({}, direction=wide)
    foreign = Direction(
        "o", VECTOR.kind, VECTOR.site, (1,), VECTOR.tensors, model_fingerprint="0" * 16
    )
    with pytest.raises(IncompatibleModelError, match="model_fingerprint"):
        plan_of({}, direction=foreign)


def test_monitors_read_unit_vectors_and_probes() -> None:
    probe = make_direction(DirectionKind.PROBE, Site.RESID_POST, (1,), SPEC, 9)
    uses = [
        MonitorUse(Monitor(direction=DirectionRef("v", 1)), VECTOR),
        MonitorUse(Monitor(direction=DirectionRef("probe-9", 1), layer=1), probe),
    ]
    plan = compile_plan([], uses, SPEC)
    assert [m.point for m in plan.monitors] == [SitePoint(1, Site.RESID_POST)] * 2
    assert float(plan.monitors[0].vector.norm()) == pytest.approx(1.0)
    assert plan.monitors[1].bias == pytest.approx(float(probe.at(1)["bias"]))


def test_places_are_shared_by_equal_edits_and_given_back() -> None:
    runtime = SteeringRuntime(3, dict.fromkeys(range(3), torch.device("cpu")), 2)
    one, same, two = plan_of({}), plan_of({"strength": 0.3}), plan_of({"layers": [0]})
    three = plan_of({"layers": [2]})
    for plan in (one, same, two):
        assert runtime.can_admit(plan)
        runtime.acquire(plan)
    assert runtime.num_live_edits == 2
    assert not runtime.can_admit(three)
    runtime.release(one)
    assert not runtime.can_admit(three)  # `same` still uses the place
    runtime.release(same)
    assert runtime.can_admit(three)


def test_the_dose_adds_up_over_layers_and_interventions() -> None:
    norms = {SitePoint(layer, Site.RESID_POST): 10.0 * (layer + 1) for layer in range(4)}
    spec = replace(make_spec(num_layers=4), resid_norms=norms)
    unit = Direction("u", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.eye(16)[0]})

    def plan(*documents: dict[str, Any]) -> SteeringPlan:
        steers = [
            Steer(Intervention.from_dict({"operation": "add", "direction": "u"} | d), unit)
            for d in documents
        ]
        return compile_plan(steers, [], spec)

    everywhere = {"layers": [0, 1, 2, 3], "unit": "resid"}
    assert plan({"strength": -5.0}).dose == pytest.approx(5 / 20)
    assert plan(everywhere | {"strength": 0.5}).dose == pytest.approx(2.0)
    assert plan(everywhere | {"strength": 0.5, "distribute": True}).dose == pytest.approx(0.5)
    assert plan({"strength": 4.0}, everywhere | {"strength": 0.1}).dose == pytest.approx(0.6)
    written = {"site": "mlp_out", "layers": [3], "strength": 8.0}
    assert plan(written).dose == pytest.approx(8 / 40)  # of the stream that it is added to
    fading = {"kind": "ramp", "start": 0.0, "end": 3.0, "tokens": 8}
    assert plan({"strength": 5.0, "schedule": fading}).dose == pytest.approx(15 / 20)
    assert plan({"operation": "ablate"}).dose is None
    assert plan({"site": "norm2", "layers": [1]}).dose is None
    assert SteeringPlan().dose is None


def test_a_dose_beyond_the_bound_is_warned_of() -> None:
    norms = {SitePoint(layer, Site.RESID_POST): 10.0 for layer in range(4)}
    spec = replace(make_spec(num_layers=4), resid_norms=norms)
    unit = Direction("u", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.eye(16)[0]})

    def warnings(**fields: Any) -> tuple[str, ...]:
        asked = {"operation": "add", "direction": "u", "layers": [0, 1, 2, 3], "unit": "resid"}
        steer = Steer(Intervention.from_dict(asked | fields), unit)
        return compile_plan([steer], [], spec).warnings

    assert warnings(strength=WARN_DOSE / 4) == ()
    [warning] = warnings(strength=WARN_DOSE / 2)
    assert "at 4 layers add up to" in warning
    assert "distribute: true" in warning
    assert warnings(strength=WARN_DOSE / 2, distribute=True) == ()


def test_layers_that_share_a_strength_push_as_one() -> None:
    shared = plan_of({"layers": [0, 2], "strength": 3.0, "distribute": True}, direction=VECTOR)
    halves = plan_of({"layers": [0, 2], "strength": 1.5}, direction=VECTOR)
    context = PositionContext(4)
    np.testing.assert_array_equal(shared.gains(0, 6, context), halves.gains(0, 6, context))
    assert shared.interventions[0].report()["strength"] == 1.5
    assert shared.fingerprint == halves.fingerprint
    with pytest.raises(InvalidFieldError, match="which 'ablate' does not use") as caught:
        Intervention.from_dict({"operation": "ablate", "direction": "v", "distribute": True})
    assert caught.value.param == "distribute"
