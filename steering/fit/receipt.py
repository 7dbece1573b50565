"""What a direction was made from, how it was chosen, and what it does: kept with the direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .selection import Candidate, Selection
from .separation import Interval


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The examples of a fit, without their text.

    Attributes:
        sha256: Hash of the examples as given, by set: `{"positive": ..., "negative": ...}`.
        token: Which token of a prompt was read: `last`, `post_instruction`, `mean` or an index.
        num_train: Examples fitted on, by set, after duplicates were removed.
        num_validation: Examples held out, by set.
        num_duplicates_removed: Examples dropped because their set held them already.
        num_leaked_removed: Examples dropped because the other set or the other split held them.
        system_prompt_sha256: Hash of a system prompt used while extracting and absent when
            serving; None without one.
        seed: Seed of the split.
    """

    sha256: Mapping[str, str]
    token: str | int
    num_train: Mapping[str, int]
    num_validation: Mapping[str, int]
    num_duplicates_removed: int = 0
    num_leaked_removed: int = 0
    system_prompt_sha256: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """What the direction, used as its method means it, costs where nothing should change.

    Attributes:
        kl: Mean KL divergence (nats) from the unedited model on neutral prompts.
        perplexity: Perplexity on neutral text, edit active.
        base_perplexity: Perplexity on the same text without the edit.
        operation: The operation that was measured.
        strength: The strength it was measured at.
    """

    kl: float | None = None
    perplexity: float | None = None
    base_perplexity: float | None = None
    operation: str | None = None
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Everything needed to judge a fitted direction without its data.

    Attributes:
        method: Name in `steering.fit.METHODS`.
        options: All options, defaults included.
        data: What it was fitted on.
        scope: Tokens on which edits acted when they were measured.
        sinks: Attention sinks that were left out of it: their `positions`, and their lengths in
            `norm_ratios`; None where they were not looked for.
        selection: The layers and position taken, why, and why not the others.
        base: The unedited model's scores, of those that candidates were compared by.
        candidates: Every layer and position considered, with its scores.
        separation: Scores of the chosen direction on validation samples, with intervals:
            `auc`, `d_prime`, `cosine`.
        dose_resid_norms: Length of what strength 1 adds, in mean residual norms, by layer.
        damage: What it costs; None where it was not measured.
        notes: Warnings for whoever uses the direction.
    """

    method: str
    options: Mapping[str, Any]
    data: DataSummary
    scope: Mapping[str, Any] = field(default_factory=dict)
    sinks: Mapping[str, Any] | None = None
    selection: Selection | None = None
    base: Mapping[str, float] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    separation: Mapping[str, Interval] = field(default_factory=dict)
    dose_resid_norms: Mapping[int, float] = field(default_factory=dict)
    damage: Damage | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON; layers become strings, as JSON has no other keys."""
        document = {
            name: asdict(value) if (value := getattr(self, name)) is not None else None
            for name in ("data", "selection", "damage")
        }
        return document | {
            "method": self.method,
            "options": dict(self.options),
            "scope": dict(self.scope),
            "sinks": None if self.sinks is None else dict(self.sinks),
            "base": dict(self.base),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "separation": {name: asdict(value) for name, value in self.separation.items()},
            "dose_resid_norms": {str(layer): dose for layer, dose in self.dose_resid_norms.items()},
            "notes": list(self.notes),
        }
