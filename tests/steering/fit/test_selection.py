from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.errors import FitError, LayerOutOfRangeError, NonFiniteError
from steering.fit import Candidate, select_by_effect, select_by_log_odds, select_by_separation
from steering.sites import Site

scores = st.floats(-5, 5)
measured = st.builds(
    Candidate,
    layer=st.integers(0, 9),
    position=st.integers(-3, -1),
    bypass=scores,
    induce=scores,
    kl=st.floats(0, 0.3),
    log_odds=scores,
    auc=st.floats(0, 1),
    d_prime=scores,
)


def published(candidates: list[Candidate], num_layers: int) -> Candidate | None:
    """The published filter and order, on the input of block l (`resid_pre`)."""
    kept = [
        c
        for c in candidates
        if not (
            c.layer >= int(num_layers * (1.0 - 0.2))
            or (c.kl or 0.0) > 0.1
            or (c.induce or 0.0) < 0.0
        )
    ]
    return min(kept, key=lambda c: (c.bypass, c.layer)) if kept else None


@given(st.lists(measured, max_size=12))
def test_effect_is_the_published_rule(candidates: list[Candidate]) -> None:
    expected = published(candidates, 10)
    if expected is None:
        with pytest.raises(FitError, match="no candidate qualifies") as caught:
            select_by_effect(candidates, num_layers=10, site=Site.RESID_PRE)
        assert caught.value.param == "layers"
        return
    selection = select_by_effect(candidates, num_layers=10, site=Site.RESID_PRE)
    assert selection.chosen == expected
    assert len(selection.rejected) == len(candidates) - 1
    assert all(rejection.reason for rejection in selection.rejected)


@given(st.lists(measured, min_size=1, max_size=12))
def test_the_output_of_a_block_is_the_input_of_the_next(candidates: list[Candidate]) -> None:
    shifted = [replace(c, layer=c.layer + 1) for c in candidates]
    if published(shifted, 10) is not None:
        before = select_by_effect(shifted, num_layers=10, site=Site.RESID_PRE).chosen
        after = select_by_effect(candidates, num_layers=10, site=Site.RESID_POST).chosen
        assert replace(after, layer=after.layer + 1) == before


def test_every_reason_is_named() -> None:
    good = Candidate(2, -1, bypass=0.0, induce=1.0, kl=0.05)
    others = {
        "8 of 10 blocks passed": replace(good, layer=7),
        "kl 0.2 is over 0.1": replace(good, kl=0.2),
        "induce -1 is under 0": replace(good, induce=-1.0),
        "bypass was not measured": replace(good, bypass=None),
        "induce was not measured": replace(good, induce=None),
        "kl was not measured": replace(good, kl=None),
        "bypass 1, layer 2, position -1 has bypass 0": replace(good, bypass=1.0),
        "scores are those of": replace(good, layer=3),
    }
    selection = select_by_effect([*others.values(), good], num_layers=10)
    assert selection.chosen is good
    assert selection.reasons == ("lowest bypass: bypass 0", "3 of 9 candidates qualify")
    for expected, rejection in zip(others, selection.rejected, strict=True):
        assert rejection.reason.startswith(expected)


@given(st.lists(measured, min_size=1, max_size=12))
def test_log_odds_are_maximised_in_the_middle_of_the_network(candidates: list[Candidate]) -> None:
    # Of ten layers, l + 1 in 3.5 to 6.5 leaves 3, 4 and 5.
    kept = [c for c in candidates if c.layer in (3, 4, 5)]
    if kept:
        chosen = select_by_log_odds(candidates, num_layers=10).chosen
        assert chosen.log_odds == max(c.log_odds for c in kept if c.log_odds is not None)
    bounded = [c for c in kept if (c.kl or 0.0) <= 0.1]
    if bounded:
        chosen = select_by_log_odds(candidates, num_layers=10, max_kl=0.1).chosen
        assert chosen in bounded
    else:
        with pytest.raises(FitError, match="no candidate"):
            select_by_log_odds(candidates, num_layers=10, max_kl=0.1)


@given(st.lists(measured, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_separation_takes_the_best_whatever_the_order(
    candidates: list[Candidate], random: Random
) -> None:
    chosen = select_by_separation(candidates).chosen
    key = (chosen.auc, chosen.d_prime, -chosen.layer)
    assert key == max((c.auc, c.d_prime, -c.layer) for c in candidates)
    random.shuffle(candidates)
    again = select_by_separation(candidates).chosen
    assert (again.auc, again.d_prime, -again.layer) == key


def test_candidates_hold_only_what_can_be_compared() -> None:
    with pytest.raises(LayerOutOfRangeError):
        Candidate(-1)
    with pytest.raises(NonFiniteError, match="kl of layer 2, position -1, rank 3 is nan") as caught:
        Candidate(2, -1, {"rank": 3}, kl=float("nan"))
    assert caught.value.param == "kl"
    with pytest.raises(FitError, match="auc was not measured"):
        select_by_separation([Candidate(1)])
    with pytest.raises(FitError, match="none given"):
        select_by_separation([])


@given(st.lists(measured, min_size=1, max_size=12), scores, st.booleans())
def test_log_odds_must_surpass_the_unedited_model(
    candidates: list[Candidate], unedited: float, is_falling: bool
) -> None:
    sign = -1 if is_falling else 1
    kept = [sign * c.log_odds for c in candidates if c.log_odds is not None]
    better = [value for value in kept if value > sign * unedited]
    asked = {"num_layers": 10, "depth": (0.0, 1.0), "is_falling": is_falling}
    if better:
        selection = select_by_log_odds(candidates, base={"log_odds": unedited}, **asked)
        assert selection.chosen.log_odds == sign * max(better)
        assert selection.reasons[-1] == f"unedited: log_odds {unedited:.4g}"
        assert selection.rule == ("log_odds_fall" if is_falling else "log_odds")
    else:
        with pytest.raises(FitError, match="the unedited model's"):
            select_by_log_odds(candidates, base={"log_odds": unedited}, **asked)


@given(st.lists(measured, min_size=1, max_size=12, unique_by=str))
def test_the_bounds_that_are_named_admit_the_nearest(candidates: list[Candidate]) -> None:
    bounds = {"num_layers": 20, "max_kl": 0.1, "min_induce": 3.0}
    try:
        select_by_effect(candidates, **bounds)
        return
    except FitError as error:
        nearest = str(error).split("nearest: ")[1].split(" would admit")[0]
    for found in re.finditer(r"(max_kl|min_induce) (-?[\d.e-]+)", nearest.split(", which ")[1]):
        bounds[found[1]] = float(found[2])
    selection = select_by_effect(candidates, **bounds)
    worse = [item.label for item in selection.rejected if item.reason.startswith("bypass")]
    assert nearest.split(": ")[0] in {str(selection.chosen), *worse}


def test_nothing_that_qualifies_is_told_with_what_is_nearest() -> None:
    table = [
        Candidate(2, -1, bypass=-1.0, induce=-5.0, kl=0.04),
        Candidate(3, -1, bypass=-3.0, induce=0.5, kl=0.137),
        Candidate(9, -1, bypass=-4.0, induce=0.9, kl=0.01),
    ]
    with pytest.raises(FitError) as caught:
        select_by_effect(table, num_layers=10, base={"bypass": 2.0, "induce": -6.0})
    assert str(caught.value) == (
        "no candidate qualifies by effect (of 3, 1 with induce under 0, 1 with kl over 0.1, 1 too "
        "deep; nearest: layer 3, position -1: kl 0.137 is over 0.1; bypass -3, which max_kl 0.14 "
        "would admit; layer 2, position -1: induce -5 is under 0; bypass -1, which min_induce -5 "
        "would admit; layer 9, position -1: 10 of 10 blocks passed; expected fewer than 8; bypass "
        "-4; unedited: bypass 2, induce -6); measure other layers or loosen the bounds"
    )
