"""Candidates with their measured scores, and the choice of a layer and position among them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
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

_NUM_NEAREST: Final = 3
_NO_BASE: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Candidate:
    """Scores of one candidate; a score that was not measured is None.

    Attributes:
        layer: Layer the activations are from (0-based).
        position: Token they are from, negative from the end of the prompt; None where several
            tokens are pooled.
        options: In what candidates differ beside that, for example `{"rank": 2}`: options of the
            method, and `num_layers`, layers taken from `layer` on.
        auc: Area under the ROC curve of the projections of validation samples, in [0, 1].
        d_prime: Difference of their means in pooled standard deviations.
        accuracy: Balanced accuracy on validation samples at a threshold fixed on training ones.
        cosine_stability: Mean cosine between the direction and those of resampled data.
        bypass: Mean log-odds of the behaviour on prompts that show it, direction ablated.
        induce: Mean log-odds of the behaviour on prompts that do not, direction added.
        kl: Mean KL divergence (nats) of the edited next-token distribution from the unedited one
            on prompts that should not change.
        log_odds: Mean log-odds of the behaviour on validation prompts, edit active.
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

    def lacks(self, score: str) -> bool:
        """Whether a score was not measured."""
        return getattr(self, score) is None

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
    base: Mapping[str, float] = _NO_BASE,
) -> Selection:
    """Lowest `bypass` among those with depth < 0.8 L, `kl` <= 0.1 and `induce` >= 0.

    Depth counts the blocks an activation has passed: the output of block l (`resid_post`) is the
    input of block l + 1, so that one cut means the same at both sites. The published selection
    reads `resid_pre`.

    Args:
        candidates: What to choose from.
        num_layers: Of the model.
        site: Where the candidates were read.
        max_kl: Largest `kl` accepted.
        min_induce: Smallest `induce` accepted.
        max_depth: Share of the network from which no candidate is accepted.
        base: `bypass` and `induce` of the unedited model, for the reasons alone.

    Raises:
        FitError: No candidate qualifies; names the nearest, and the bounds that would admit them.

    Source: Arditi et al. 2024, arXiv:2406.11717, section C.
    """
    passed, most = 1 if site is Site.RESID_POST else 0, int(max_depth * num_layers)

    def faults(candidate: Candidate) -> list[_Fault]:
        found = [_not_measured(n) for n in ("bypass", "induce", "kl") if candidate.lacks(n)]
        if candidate.layer + passed >= most:
            blocks = f"{candidate.layer + passed} of {num_layers} blocks passed"
            found.append(_Fault("too deep", f"{blocks}; expected fewer than {most}"))
        found += _over_max_kl(candidate, max_kl)
        if (induce := candidate.induce) is not None and induce < min_induce:
            reason = f"induce {induce:.3g} is under {min_induce:g}"
            bound = f"min_induce {_outwards(induce, up=False):g}"
            kind = f"with induce under {min_induce:g}"
            found.append(_Fault(kind, reason, min_induce - induce, bound))
        return found

    return _choose("effect", candidates, faults, base, _Score("bypass", sign=-1))


def select_by_log_odds(
    candidates: Sequence[Candidate],
    *,
    num_layers: int,
    depth: tuple[float, float] = TRANSPORT_DEPTH,
    max_kl: float | None = None,
    base: Mapping[str, float] = _NO_BASE,
    is_falling: bool = False,
) -> Selection:
    """Highest, or lowest, `log_odds` of a behaviour at 35 to 65 % depth, with `kl` bounded.

    Depth of layer l is (l + 1) / L, as in a profile's layer ranges.

    Args:
        candidates: What to choose from.
        num_layers: Of the model.
        depth: Closed range of depth accepted.
        max_kl: Largest `kl` accepted; None bounds nothing: a transport map changes much, so the
            damage to accept is the caller's.
        base: `log_odds` of the unedited model; a candidate that does not surpass it is refused.
        is_falling: Whether the behaviour is to become less likely, instead of more.

    Raises:
        FitError: No candidate qualifies; names the nearest, and the bounds that would admit them.
    """
    sign = -1 if is_falling else 1

    def faults(candidate: Candidate) -> list[_Fault]:
        found = [_not_measured("log_odds")] if candidate.lacks("log_odds") else []
        share = (candidate.layer + 1) / num_layers
        if not depth[0] <= share <= depth[1]:
            found.append(
                _Fault(
                    "at another depth",
                    f"depth {share:.2f} is outside {depth[0]:g} to {depth[1]:g}",
                )
            )
        if max_kl is not None:
            if candidate.lacks("kl"):
                found.append(_not_measured("kl"))
            found += _over_max_kl(candidate, max_kl)
        unedited = base.get("log_odds")
        if candidate.log_odds is not None and unedited is not None:
            gain = sign * (candidate.log_odds - unedited)
            if gain <= 0:
                kind = f"not {'below' if is_falling else 'above'} the unedited model's"
                reason = f"log_odds {candidate.log_odds:.3g} is {kind} {unedited:.3g}"
                found.append(_Fault(f"{kind} {unedited:.3g}", reason, -gain))
        return found

    rule = "log_odds_fall" if is_falling else "log_odds"
    return _choose(rule, candidates, faults, base, _Score("log_odds", sign=sign))


def select_by_separation(candidates: Sequence[Candidate]) -> Selection:
    """Highest `auc` on validation samples, then highest `d_prime`, then the earlier layer.

    Separation says where a concept can be read, not where changing it changes the answer.

    Raises:
        FitError: No candidate has an `auc`.
    """

    def faults(candidate: Candidate) -> list[_Fault]:
        return [_not_measured("auc")] if candidate.lacks("auc") else []

    scores = _Score("auc", sign=1), _Score("d_prime", sign=1)
    return _choose("separation", candidates, faults, _NO_BASE, *scores)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What keeps a candidate from being chosen.

    Attributes:
        kind: What candidates with the same fault are counted under.
        reason: The fault of this one, in words.
        excess: How far it is beyond the bound, nats; infinite where it is not a matter of nats.
        bound: The bound that would admit it; "" where there is none to set.
    """

    kind: str
    reason: str
    excess: float = math.inf
    bound: str = ""


def _not_measured(score: str) -> _Fault:
    return _Fault(f"without {score}", f"{score} was not measured")


def _over_max_kl(candidate: Candidate, max_kl: float) -> list[_Fault]:
    kl = candidate.kl
    if kl is None or kl <= max_kl:
        return []
    bound = f"max_kl {_outwards(kl, up=True):g}"
    return [
        _Fault(f"with kl over {max_kl:g}", f"kl {kl:.3g} is over {max_kl:g}", kl - max_kl, bound)
    ]


def _outwards(value: float, *, up: bool) -> float:
    """The number of two digits next to `value`, not below it, or not above it."""
    unit = 10.0 ** (math.floor(math.log10(max(abs(value), 1e-6))) - 1)
    return (math.ceil if up else math.floor)(value / unit) * unit


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
    faults_of: Callable[[Candidate], list[_Fault]],
    base: Mapping[str, float],
    *scores: _Score,
) -> Selection:
    faults = [faults_of(candidate) for candidate in candidates]
    qualified = [c for c, found in zip(candidates, faults, strict=True) if not found]
    unedited = ", ".join(f"{name} {value:.4g}" for name, value in base.items())
    if not qualified:
        about = _nearest(candidates, faults, scores) if candidates else "none given"
        suffix = f"; unedited: {unedited}" if unedited else ""
        raise FitError(
            f"no candidate qualifies by {rule} ({about}{suffix}); measure other layers or loosen "
            "the bounds",
            param="layers",
        )
    chosen = max(qualified, key=lambda c: (*(s.of(c) for s in scores), -c.layer))
    summary = ", ".join(score.describe(chosen) for score in scores)
    rejected = tuple(
        Rejection(c.layer, c.position, str(c), _reasons(found) or _worse(c, chosen, scores))
        for c, found in zip(candidates, faults, strict=True)
        if c is not chosen
    )
    reasons = [
        f"{'lowest' if scores[0].sign < 0 else 'highest'} {scores[0].name}: {summary}",
        f"{len(qualified)} of {len(candidates)} candidates qualify",
    ]
    if unedited:
        reasons.append(f"unedited: {unedited}")
    return Selection(rule, chosen, tuple(reasons), rejected)


def _nearest(
    candidates: Sequence[Candidate], faults: Sequence[list[_Fault]], scores: Sequence[_Score]
) -> str:
    """How many candidates have which fault, and those that are least beyond the bounds."""
    kinds = Counter(fault.kind for found in faults for fault in found)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    ranked = sorted(
        zip(candidates, faults, strict=True),
        key=lambda item: (sum(f.excess for f in item[1]), *(-s.of(item[0]) for s in scores)),
    )
    named = []
    for candidate, found in ranked[:_NUM_NEAREST]:
        bounds = [fault.bound for fault in found]
        admitted = f", which {' and '.join(bounds)} would admit" if all(bounds) else ""
        score = ", ".join(score.describe(candidate) for score in scores)
        named.append(f"{candidate}: {_reasons(found)}; {score}{admitted}")
    return f"of {len(candidates)}, {counted}; nearest: {'; '.join(named)}"


def _reasons(faults: Sequence[_Fault]) -> str:
    return ", ".join(fault.reason for fault in faults)


def _worse(candidate: Candidate, chosen: Candidate, scores: Sequence[_Score]) -> str:
    for score in scores:
        if score.of(candidate) != score.of(chosen):
            return f"{score.describe(candidate)}, {chosen} has {score.describe(chosen)}"
    return f"scores are those of {chosen}, which comes first"
