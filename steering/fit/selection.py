"""Candidates with their measured scores, and the choice of a layer and position among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from steering.errors import FitError, LayerOutOfRangeError, NonFiniteError
from steering.sites import Site

_SCORES: Final = (
    "auc",
    "d_prime",
    "accuracy",
    "cosine_stability",
    "bypass",
    "induce",
    "kl",
    "log_odds",
    "target_accuracy",
)

MAX_KL: Final = 0.1
"""Largest mean KL divergence (nats) on prompts that should not change."""

MAX_DEPTH: Final = 0.8
"""Share of the network after which no direction is taken by effect."""

TRANSPORT_DEPTH: Final = (0.35, 0.65)
"""Closed range of depth scanned for a transport map."""

_NOT_MEASURED: Final = "{} was not measured"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Scores of one candidate; a score that was not measured is None.

    Attributes:
        layer: Layer the activations are from (0-based).
        position: Token they are from, negative from the end of the prompt; None where several
            tokens are pooled.
        options: Options of the method in which candidates differ, for example `{"rank": 2}`.
        auc: Area under the ROC curve of the projections of validation samples, in [0, 1].
        d_prime: Difference of their means in pooled standard deviations.
        accuracy: Balanced accuracy on validation samples at a threshold fixed on training ones.
        cosine_stability: Mean cosine between the direction and those of resampled data.
        bypass: Mean log-odds of the behaviour on prompts that show it, direction ablated.
        induce: Mean log-odds of the behaviour on prompts that do not, direction added.
        kl: Mean KL divergence (nats) of the edited next-token distribution from the unedited one
            on prompts that should not change.
        log_odds: Mean log-odds of the *wanted* behaviour on validation prompts, edit active.
        target_accuracy: Share of validation answers that are as wanted, edit active.

    Raises:
        LayerOutOfRangeError: A negative layer.
        NonFiniteError: A score is NaN or infinite; leave out what was not measured.
    """

    layer: int
    position: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    auc: float | None = None
    d_prime: float | None = None
    accuracy: float | None = None
    cosine_stability: float | None = None
    bypass: float | None = None
    induce: float | None = None
    kl: float | None = None
    log_odds: float | None = None
    target_accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise LayerOutOfRangeError(
                f"layer is {self.layer}; expected a layer from 0", param="layer"
            )
        for name in _SCORES:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise NonFiniteError(
                    f"{name} of {self} is {value}; expected a finite number, or None where it was "
                    "not measured",
                    param=name,
                )

    def __str__(self) -> str:
        place = "" if self.position is None else f", position {self.position}"
        rest = "".join(f", {name} {value}" for name, value in self.options.items())
        return f"layer {self.layer}{place}{rest}"

    def to_dict(self) -> dict[str, Any]:
        """The fields for JSON, without those that were not measured."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that was not chosen, and why.

    Attributes:
        layer: The candidate's layer.
        position: The candidate's position, or None.
        label: The candidate in words.
        reason: Why it was not chosen.
    """

    layer: int
    position: int | None
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidate that a rule chose, and why.

    Attributes:
        rule: Name of the rule.
        chosen: The candidate chosen.
        reasons: Why it was chosen, in words.
        rejected: Every other candidate, with the reason.
    """

    rule: str
    chosen: Candidate
    reasons: tuple[str, ...]
    rejected: tuple[Rejection, ...]


def select_by_effect(
    candidates: Sequence[Candidate],
    *,
    num_layers: int,
    site: Site = Site.RESID_POST,
    max_kl: float = MAX_KL,
    min_induce: float = 0.0,
    max_depth: float = MAX_DEPTH,
) -> Selection:
    """Lowest `bypass` among those with depth < 0.8 L, `kl` <= 0.1 and `induce` >= 0.

    Depth counts the blocks an activation has passed: the output of block l (`resid_post`) is the
    input of block l + 1, so that one cut means the same at both sites. The published selection
    reads `resid_pre`.

    Raises:
        FitError: No candidate qualifies; says why for each.

    Source: Arditi et al. 2024, arXiv:2406.11717, section C.
    """
    passed = 1 if site is Site.RESID_POST else 0

    def fault(candidate: Candidate) -> str | None:
        for name in ("bypass", "induce", "kl"):
            if getattr(candidate, name) is None:
                return _NOT_MEASURED.format(name)
        if candidate.layer + passed >= int(max_depth * num_layers):
            return (
                f"{candidate.layer + passed} of {num_layers} blocks passed; expected fewer than "
                f"{int(max_depth * num_layers)}"
            )
        if (kl := candidate.kl) is not None and kl > max_kl:
            return f"kl {kl:.3g} is over {max_kl:g}"
        if (induce := candidate.induce) is not None and induce < min_induce:
            return f"induce {induce:.3g} is under {min_induce:g}"
        return None

    return _choose("effect", candidates, fault, _Score("bypass", sign=-1))


def select_by_log_odds(
    candidates: Sequence[Candidate],
    *,
    num_layers: int,
    depth: tuple[float, float] = TRANSPORT_DEPTH,
    max_kl: float | None = None,
) -> Selection:
    """Highest `log_odds` of the wanted behaviour at 35 to 65 % depth, with `kl` bounded.

    Depth of layer l is (l + 1) / L, as in a profile's layer ranges. `max_kl` None bounds nothing:
    a transport map changes much, so the damage to accept is the caller's.

    Raises:
        FitError: No candidate qualifies; says why for each.
    """

    def fault(candidate: Candidate) -> str | None:
        if candidate.log_odds is None:
            return _NOT_MEASURED.format("log_odds")
        share = (candidate.layer + 1) / num_layers
        if not depth[0] <= share <= depth[1]:
            return f"depth {share:.2f} is outside {depth[0]:g} to {depth[1]:g}"
        if max_kl is not None:
            if candidate.kl is None:
                return _NOT_MEASURED.format("kl")
            if candidate.kl > max_kl:
                return f"kl {candidate.kl:.3g} is over {max_kl:g}"
        return None

    return _choose("log_odds", candidates, fault, _Score("log_odds", sign=1))


def select_by_separation(candidates: Sequence[Candidate]) -> Selection:
    """Highest `auc` on validation samples, then highest `d_prime`, then the earlier layer.

    Separation says where a concept can be read, not where changing it changes the answer.

    Raises:
        FitError: No candidate has an `auc`.
    """

    def fault(candidate: Candidate) -> str | None:
        return None if candidate.auc is not None else _NOT_MEASURED.format("auc")

    return _choose("separation", candidates, fault, _Score("auc", sign=1), _Score("d_prime", 1))


@dataclass(frozen=True, slots=True)
class _Score:
    """A score to compare by; sign 1 where more is better, -1 where less is."""

    name: str
    sign: int

    def of(self, candidate: Candidate) -> float:
        value = getattr(candidate, self.name)
        return float("-inf") if value is None else self.sign * value

    def describe(self, candidate: Candidate) -> str:
        value = getattr(candidate, self.name)
        return f"{self.name} not measured" if value is None else f"{self.name} {value:.4g}"


def _choose(
    rule: str,
    candidates: Sequence[Candidate],
    fault: Callable[[Candidate], str | None],
    *scores: _Score,
) -> Selection:
    faults = [fault(candidate) for candidate in candidates]
    qualified = [c for c, reason in zip(candidates, faults, strict=True) if reason is None]
    if not qualified:
        listed = "; ".join(f"{c}: {reason}" for c, reason in zip(candidates, faults, strict=True))
        raise FitError(
            f"no candidate qualifies by {rule} ({listed or 'none given'}); measure other layers or "
            "loosen the bounds",
            param="layers",
        )
    chosen = max(qualified, key=lambda c: (*(s.of(c) for s in scores), -c.layer))
    summary = ", ".join(score.describe(chosen) for score in scores)
    rejected = tuple(
        Rejection(c.layer, c.position, str(c), reason or _worse(c, chosen, scores))
        for c, reason in zip(candidates, faults, strict=True)
        if c is not chosen
    )
    reasons = (
        f"{'lowest' if scores[0].sign < 0 else 'highest'} {scores[0].name}: {summary}",
        f"{len(qualified)} of {len(candidates)} candidates qualify",
    )
    return Selection(rule, chosen, reasons, rejected)


def _worse(candidate: Candidate, chosen: Candidate, scores: Sequence[_Score]) -> str:
    for score in scores:
        if score.of(candidate) != score.of(chosen):
            return f"{score.describe(candidate)}, {chosen} has {score.describe(chosen)}"
    return f"scores are those of {chosen}, which comes first"
