"""Requests to the engine, and the state of one request inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steering.documents import PositionContext

from .sampling import SamplingParams

if TYPE_CHECKING:
    from steering.plan import SteeringPlan
    from steering.sites import SitePoint

    from .gate_latch import GateLatch


class Priority(IntEnum):
    """Order of service; lower goes first."""

    INTERACTIVE = 0
    JOB = 1


Scalar = str | int | float | bool | None
"""A value that a caller may give to a variable of a chat template."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """What one chat asks of the model's template beside its messages.

    Attributes:
        name: Which of a checkpoint's templates; None means the default one, or `tool_use` where
            there are tools and a template of that name.
        variables: Values of variables that the template reads, such as `enable_thinking`.
        reasoning_effort: How much the model is to think, `none` for not at all; None leaves it to
            the template.
        tools: Functions that the model is told of, each as an OpenAI tool.
    """

    name: str | None = None
    variables: Mapping[str, Scalar] = field(default_factory=dict)
    reasoning_effort: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()


class Pooling(StrEnum):
    """The tokens of a captured prompt whose activations are kept."""

    LAST = "last"
    MEAN = "mean"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate; a request with n choices is n of these.

    Attributes:
        request_id: Unique among running requests.
        prompt_token_ids: Token ids of the prompt, at least one.
        sampling: How tokens are chosen.
        plan: Compiled steering, or None.
        choice_index: Index of this choice among n; part of the seed's counter.
        priority: Interactive before jobs.
        cache_salt: Prefix-cache entries are shared only under an equal salt (per API key).
        prompt_regions: Region bits (`steering.documents.Region`) per prompt token, or None.
        is_thinking: Whether the prompt ends within a thought; None where thoughts are not to be
            told apart from the answer.
        steering_prompt_tokens: Where `prompt` ends and `generated` begins for steering; None
            means at the prompt's end. For text scored as a continuation.
        monitor_prompt: Whether the plan's monitors read every prompt token, not only the last.
        capture_points: Sites whose activations are returned, before any edit there.
        capture_positions: Half-open window of prompt positions captured.
        score_positions: Half-open window of prompt positions whose next-token distribution is
            wanted, or None; excludes prompt log-probabilities.
        score_full: Whether whole distributions are returned, not only known tokens' values.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    plan: SteeringPlan | None = None
    choice_index: int = 0
    priority: Priority = Priority.INTERACTIVE
    cache_salt: bytes = b""
    prompt_regions: bytes | None = None
    is_thinking: bool | None = None
    steering_prompt_tokens: int | None = None
    monitor_prompt: bool = False
    capture_points: tuple[SitePoint, ...] = ()
    capture_positions: tuple[int, int] = (0, 0)
    score_positions: tuple[int, int] | None = None
    score_full: bool = False


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Activations wanted of prompts; runs at job priority beside other traffic.

    Attributes:
        request_id: Unique among running requests.
        prompts: Token ids of each prompt.
        points: Where to read, before any edit at that point.
        pooling: Which tokens are kept; `MEAN` is over the whole prompt, or over its window.
        indices: Position kept per prompt with `LAST`, counted from the end: -1 is the last token.
        plan: Steering active while capturing, or None.
        windows: Half-open positions read of each prompt, with `MEAN` and `ALL`; None reads all.
        steering_prompt_tokens: Where `prompt` ends for the plan, per prompt; None means at its end.
    """

    request_id: str
    prompts: tuple[tuple[int, ...], ...]
    points: tuple[SitePoint, ...]
    pooling: Pooling = Pooling.LAST
    indices: tuple[int, ...] | None = None
    plan: SteeringPlan | None = None
    windows: tuple[tuple[int, int], ...] | None = None
    steering_prompt_tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Next-token distributions wanted of known text; runs at job priority beside other traffic.

    Attributes:
        request_id: Unique among running requests.
        prompts: Token ids of each text.
        plan: Steering under which it is read, or None.
        windows: Half-open positions of each text whose next-token distribution is wanted; the
            distribution at position p is of the token at p + 1. None means all.
        full: Whether whole distributions are returned; they are large.
        steering_prompt_tokens: Where `prompt` ends and `generated` begins for the plan, per text;
            None means at its end.
        prompt_regions: Region bits per token of each text, for a plan whose scopes name regions.
    """

    request_id: str
    prompts: tuple[tuple[int, ...], ...]
    plan: SteeringPlan | None = None
    windows: tuple[tuple[int, int], ...] | None = None
    full: bool = False
    steering_prompt_tokens: tuple[int, ...] | None = None
    prompt_regions: tuple[bytes | None, ...] | None = None


class RequestStatus(Enum):
    """The stage of a request's life."""

    WAITING = auto()
    RUNNING = auto()
    PREEMPTED = auto()
    FINISHED = auto()


class TokenCounts:
    """Distinct tokens of one sequence with their counts: extended as it grows, never made anew.

    Args:
        prompt_token_ids: Tokens that are there from the start; each counts 0.
    """

    def __init__(self, prompt_token_ids: Sequence[int] = ()) -> None:
        self._ids = np.unique(np.array(prompt_token_ids, dtype=np.int64))
        self._counts = np.zeros(len(self._ids), dtype=np.int64)
        self._places = {token_id: place for place, token_id in enumerate(self._ids.tolist())}
        self._num_seen = 0

    def follow(self, output_token_ids: Sequence[int]) -> None:
        """Count what has been generated since the last call.

        Args:
            output_token_ids: All of it; what was counted before is not looked at again.
        """
        for token_id in output_token_ids[self._num_seen :]:
            place = self._places.setdefault(token_id, len(self._places))
            if place == len(self._ids):
                self._grow()
            self._ids[place] = token_id
            self._counts[place] += 1
        self._num_seen = len(output_token_ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The distinct tokens, [N]."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each of them was generated, [N]."""
        return self._counts[: len(self._places)]

    def _grow(self) -> None:
        room = np.zeros(max(len(self._ids), 64), dtype=np.int64)
        self._ids = np.concatenate([self._ids, room])
        self._counts = np.concatenate([self._counts, room])


@dataclass(eq=False)
class Request:
    """A sequence being served: owned and changed by the engine thread only.

    Attributes:
        spec: The request as it was made; never changes.
        arrival: Ordinal of admission; ties of priority are served in this order.
        seed: The request's own, or one drawn at admission.
        max_tokens: Resolved against the context length.
        output_token_ids: Generated so far; survives preemption.
        num_computed_tokens: Positions whose keys and values are in the cache.
        num_stored_tokens: Positions whose slots were written, refused drafts included.
        num_cached_tokens: Prompt tokens taken from the prefix cache at first admission.
        block_table: Cache blocks by position // block_size.
        regions: Region bits per known token, extended as tokens are sampled; None if unused.
        latch: The gates decided on its prompt; None if it has none.
        token_counts: What its penalties go by; the sampler's, None until it has needed them.
    """

    spec: GenerationRequest
    arrival: int
    seed: int
    max_tokens: int
    status: RequestStatus = RequestStatus.WAITING
    output_token_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_stored_tokens: int = 0
    num_cached_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    regions: bytearray | None = None
    latch: GateLatch | None = None
    token_counts: TokenCounts | None = None

    @property
    def request_id(self) -> str:
        """The request's id, unique among running requests."""
        return self.spec.request_id

    @property
    def num_prompt_tokens(self) -> int:
        """Number of tokens in the prompt, as the caller counts them."""
        return len(self.spec.prompt_token_ids)

    @cached_property
    def positions(self) -> PositionContext:
        """The meaning of its absolute positions to steering; follows `regions` and `latch`."""
        gates = frozenset() if self.latch is None else self.latch.open_gates
        return PositionContext(self.boundary, self.regions, gates)

    @property
    def boundary(self) -> int:
        """Position at which its prompt ends for steering."""
        given = self.spec.steering_prompt_tokens
        return self.num_prompt_tokens if given is None else given

    @property
    def is_latching(self) -> bool:
        """Whether it has gates that are not decided yet."""
        return self.latch is not None and not self.latch.is_decided

    @property
    def num_tokens(self) -> int:
        """Number of tokens known, of the prompt and generated."""
        return self.num_prompt_tokens + len(self.output_token_ids)

    @property
    def num_ready_tokens(self) -> int:
        """Number of tokens whose steering is known: the prompt's until its gates are decided."""
        if not self.is_latching:
            return self.num_tokens
        return min(self.num_tokens, self.boundary)

    @property
    def needs_whole_prompt(self) -> bool:
        """Whether every token of its prompt must be run, so that cached ones are of no use."""
        plan = self.spec.plan
        return (
            self.logit_window != (0, 0)
            or bool(self.spec.capture_points)
            or self.spec.monitor_prompt
            or (plan is not None and plan.reads_prompt(self.positions, self.num_prompt_tokens))
        )

    @property
    def logit_window(self) -> tuple[int, int]:
        """Half-open positions of the prompt whose logits are returned, beside those sampled."""
        if self.spec.score_positions is not None:
            return self.spec.score_positions
        if self.spec.sampling.prompt_logprobs is None or self.output_token_ids:
            return (0, 0)
        return (0, self.num_prompt_tokens - 1)

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Known tokens at absolute positions [start, stop)."""
        split = self.num_prompt_tokens
        prompt = self.spec.prompt_token_ids[start : min(stop, split)]
        return [*prompt, *self.output_token_ids[max(start - split, 0) : max(stop - split, 0)]]
