"""What the server finds in known text and inside the model: scores, traces, cliffs, heads."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .record import Generated, Record
from .steering import AppliedSteering


class ScoredToken(Record):
    """One token of known text.

    Attributes:
        position: Position in the whole text, from 0.
        id: Token id.
        text: Text that it adds.
        logprob: Log-probability under the steering, in nats.
        unsteered_logprob: Log-probability without steering, in nats.
        kl: KL(unsteered || steered) of the distributions it is drawn from, in nats; None without
            steering.
    """

    position: int
    id: int
    text: str
    logprob: float
    unsteered_logprob: float
    kl: float | None = None


class Score(Generated):
    """Known text, token by token.

    Attributes:
        tokens: The tokens that are scored.
        logprob: Sum of the log-probabilities under the steering, in nats.
        unsteered_logprob: The same sum without steering.
        mean_kl: Mean KL of all distributions, that after the last token included, in nats; None
            without steering.
        next_kl: KL of the distribution after the last token, in nats; None without steering.
        steering: What was applied.
    """

    tokens: list[ScoredToken]
    logprob: float
    unsteered_logprob: float
    mean_kl: float | None = None
    next_kl: float | None = None
    steering: AppliedSteering

    @property
    def kl(self) -> list[float]:
        """KL of every distribution, in order, in nats; empty without steering."""
        return [kl for kl in (*(t.kl for t in self.tokens), self.next_kl) if kl is not None]


class TracedToken(Record):
    """One token of a trace.

    Attributes:
        id: Token id.
        text: Text that it adds.
        scope: `prompt` or `generated`.
        regions: Whose words it is part of (system, user, assistant, or template), then thinking or
            answer; empty for plain text.
    """

    id: int
    text: str
    scope: str
    regions: list[str]


class Readout(Record):
    """One direction or probe at one place: a score for each token.

    Attributes:
        scores: h . v / |v| of a vector, h . weight + bias of a probe; None for the last generated
            token, which the model never reads.
    """

    direction: str
    layer: int
    site: str
    bias: float
    scores: list[float | None]


class Trace(Generated):
    """Tokens, and the scores of every readout at each."""

    tokens: list[TracedToken]
    readouts: list[Readout]
    finish_reason: str | None = None
    steering: dict[str, Any]


class RolloutCliff(Record):
    """One rollout under a probe; scores are probabilities.

    Attributes:
        num_tokens: Number of tokens up to where its answer begins.
        thought: First token of the thought, and one past its last.
        plateau: Mean or maximum score of the thought, as was asked for, its end left out; None
            without a thought.
        final: Score of the last token before the answer.
        cliff: plateau - final.
        plateaus: The plateau by how it is taken, `mean` and `max`.
        curve: Score of every token, where asked for.
    """

    num_tokens: int
    thought: list[int]
    plateau: float | None
    final: float
    cliff: float | None
    plateaus: dict[str, float | None] = Field(default_factory=dict)
    curve: list[float] | None = None


class AverageCliff(Record):
    """The mean of a set of rollouts, aligned where their thoughts end.

    Attributes:
        curve: Mean score, resampled from the longest rollout's first to its last token.
        longest: Number of tokens of the longest rollout.
    """

    num_conversations: int
    curve: list[float]
    longest: int
    plateau: float | None
    final: float
    cliff: float | None
    plateaus: dict[str, float | None] = Field(default_factory=dict)


class Cliffs(Generated):
    """A set of rollouts; `ranking` orders them by `cliff` (largest first) and `final`."""

    probe: dict[str, Any] = Field(default_factory=dict)
    conversations: list[RolloutCliff]
    average: AverageCliff
    ranking: dict[str, list[int]]


class RankedHead(Record):
    """An attention head and its score; `direct` and `folded` of an attribution."""

    layer: int
    head: int
    score: float
    direct: float | None = None
    folded: float | None = None


class Heads(Generated):
    """Heads against a probe, the strongest suppressor first.

    Attributes:
        selected: Layer and head of the strongest few per cent.
        random: Layer and head of as many others, drawn by the seed.
        probability: Mean probability of the probe: `base`, and without the selected and without
            the random heads.
        profile: Name and version of the draft that was saved, where one was asked for.
        direction: Name and version of the direction by which the draft scales heads.
    """

    probe: dict[str, Any] = Field(default_factory=dict)
    method: str
    is_folded: bool = False
    heads: list[RankedHead]
    selected: list[list[int]]
    random: list[list[int]] = Field(default_factory=list)
    probability: dict[str, float] | None = None
    profile: str | None = None
    direction: str | None = None
