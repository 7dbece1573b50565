"""The values that the engine returns to its callers, and that travel between its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from .sampling import SamplingDefaults

if TYPE_CHECKING:
    import torch

    from steering.layout import AttentionReader
    from steering.model_spec import ModelSpec
    from steering.sites import SitePoint


class FinishReason(StrEnum):
    """Why a request ended well; failures are exceptions."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token and its natural-log probability; `text` is its own decoding."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The chosen token at one position, and the likeliest there, most likely first.

    Log-probabilities are of the model's distribution before temperature, penalties and bias.
    """

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class SteeredTokens:
    """How many tokens some intervention acted on with a gain other than zero.

    Tokens whose keys and values came from the prefix cache count: they were computed under the
    same steering.
    """

    prompt: int = 0
    generated: int = 0


@dataclass(frozen=True, slots=True)
class GateState:
    """The outcome of one intervention's gate.

    Attributes:
        is_open: Whether it is open; per token, whether it was for any token.
        score: The score compared with the threshold, per request; None per token, and where the
            request ended before its gates were decided.
        open_tokens: Per token, the tokens in scope at which it was open at some layer; else None.
    """

    is_open: bool
    score: float | None = None
    open_tokens: SteeredTokens | None = None


@dataclass(frozen=True, slots=True)
class MonitorReading:
    """A monitor's scores: absolute position of each token read, and the score there."""

    positions: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False, slots=True)
class PromptScore:
    """Scores of one text's window [start, stop) of n positions.

    Attributes:
        token_logprobs: Natural-log probability of the known token after each position, in order:
            n values, or n - 1 where the window ends with the text, whose next token is not known.
        distributions: Log-probabilities after each position, [n, vocab] float32 on the CPU; None
            where not asked for.
    """

    token_logprobs: tuple[float, ...]
    distributions: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class AppliedTemplate:
    """How a chat was rendered.

    Attributes:
        name: Name of the template; `default` for the only one.
        variables: What it was given, from the caller's variables and reasoning effort.
        merges_system: Whether a system message went into the first user turn, because the template
            has no place for one.
        ignores_effort: Whether a reasoning effort was asked for and the template reads none.
    """

    name: str
    variables: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    merges_system: bool = False
    ignores_effort: bool = False


@dataclass(frozen=True, slots=True)
class SplitText:
    """A piece of text in two: what is thought, and what is said; the markers are in neither."""

    thought: str
    answer: str


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One request's news since its last output.

    Attributes:
        request_id: Id of the request.
        text: Newly final text: never half a character, never the start of a stop string.
        split: The same text without thinking markers, thought and answer apart; None where they
            are not told apart.
        num_thought_tokens: Number of tokens of thoughts so far, markers included.
        token_ids: Newly generated tokens, in order; may be ahead of `text`.
        logprobs: One entry per new token where asked for.
        finish_reason: Set on the last output, and only there.
        stop_reason: The stop string or stop token id that ended it, if one did.
        num_prompt_tokens: Number of tokens in the prompt.
        num_output_tokens: Number of tokens generated so far.
        num_cached_tokens: Number of prompt tokens taken from the prefix cache.
        prompt_logprobs: One entry per prompt token where asked for (None for the first), on the
            first output only.
        steered_tokens: Number of tokens steered so far.
        monitors: All readings so far, in the plan's order; on the last output only.
        gates: Per intervention of the plan the state of its gate, or None without one; on the last
            output only.
        score: Score of the prompt, where asked for; on the last output only.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    num_output_tokens: int
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    steered_tokens: SteeredTokens = SteeredTokens()
    monitors: tuple[MonitorReading, ...] = ()
    gates: tuple[GateState | None, ...] = ()
    score: PromptScore | None = None
    split: SplitText | None = None
    num_thought_tokens: int = 0


@dataclass(frozen=True)
class CaptureResult:
    """Activations at sites: per point [N, width] (pooled) or per prompt [T_i, width] in float32.

    `pooled` has a row per prompt; it is empty when pooling is `all`, and `sequences` then has a
    tensor per prompt.
    """

    pooled: Mapping[SitePoint, torch.Tensor] = field(default_factory=dict)
    sequences: Mapping[SitePoint, tuple[torch.Tensor, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreResult:
    """Scores of known texts, in the order asked; see `PromptScore`.

    Attributes:
        token_logprobs: Per text, the natural-log probability of the known token after each
            position of its window.
        distributions: Per text [n, vocab] float32 log-probabilities; empty unless `full`.
    """

    token_logprobs: tuple[tuple[float, ...], ...]
    distributions: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The facts about an engine that are fixed after load.

    `device` is a readable summary such as `cpu` or `cuda:0 (12 layers), cuda:1 (12 layers)`.
    `attention` reads the weights of the attention output projections; None where the back end does
    not give access to them. `sampling` is what the model's own files recommend.
    """

    model_name: str
    spec: ModelSpec
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_live_edits: int
    vocab_size: int
    dtype: str
    device: str
    num_threads: int
    num_kv_blocks: int
    block_size: int
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    attention: AttentionReader | None = field(default=None, repr=False, compare=False)


class StepMode(StrEnum):
    """How the device was told what to do in a step."""

    EAGER = "eager"
    CAPTURED = "captured"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """How long completed steps took, as a histogram.

    Attributes:
        bounds: Upper bounds of the buckets but the last, which has none; seconds, ascending.
        counts: Number of steps in each bucket, one more than bounds.
        total: Seconds of all steps in sum.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)
    total: float = 0.0

    @property
    def num_steps(self) -> int:
        """Number of steps completed."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine, cheap to take at any time.

    Attributes:
        num_requests_running: Number of requests that hold keys and values.
        num_requests_waiting: Number of requests in the queue.
        kv_cache_usage_ratio: Used blocks over all blocks, cached ones not counted as used.
        num_preemptions: Number of preemptions since start.
        prefix_cache_queries: Prompt tokens looked up since start.
        prefix_cache_hits: Prompt tokens found since start.
        num_drafted_tokens: Tokens run as guesses since start (`EngineConfig.prompt_lookup_tokens`).
        num_accepted_tokens: Tokens of these that the sampler chose as well.
        num_live_edits: Number of columns of the steering tables in use.
        step_seconds: Durations of the steps completed since start.
        steps_by_mode: Number of these steps by how they ran.
        seconds_since_progress: Time since the engine last got anywhere, be it within a step, while
            work was queued, else 0.
        is_healthy: Whether the step loop is alive.
        is_draining: Whether new requests are refused.
    """

    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_ratio: float
    num_preemptions: int
    prefix_cache_queries: int
    prefix_cache_hits: int
    num_drafted_tokens: int
    num_accepted_tokens: int
    num_live_edits: int
    step_seconds: StepSeconds
    steps_by_mode: Mapping[StepMode, int]
    seconds_since_progress: float
    is_healthy: bool
    is_draining: bool
