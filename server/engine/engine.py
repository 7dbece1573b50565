"""The interface of an engine: its configuration, and what the API layer and jobs may ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from .outputs import CaptureResult, EngineInfo, EngineStats, RequestOutput, ScoreResult
from .request import CaptureRequest, GenerationRequest, ScoreRequest

if TYPE_CHECKING:
    from .text import Tokenizer

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The limits and the placement of an engine.

    Attributes:
        model: Path of a checkpoint in Hugging Face format.
        served_name: Name under which it is served; None means the folder's name, and `+` with that
            of the adapter's.
        adapter: Folder of a LoRA adapter that is merged into the weights; None for none.
        device: `auto`, `cpu`, `cuda` or `cuda:<i>`.
        dtype: `auto` (the checkpoint's), `float32`, `bfloat16` or `float16`.
        device_map: `none`, or a strategy of accelerate such as `auto` or `balanced`.
        num_threads: Threads of one torch operation on the CPU; 0 means physical cores.
        pack_weights: On the CPU, keep a second copy of linear weights in the layout its kernels
            prefer, where a quarter of the free memory holds it.
        generation_config: `model` takes sampling defaults from its `generation_config.json`; `none`
            leaves them as `SamplingParams` has them.
        decode_weights: On the CPU, whether steps of few tokens use a copy of these weights in
            float16 that is read faster: `auto` measures at load up to how many tokens it pays,
            `float16` uses it up to six without measuring, `off` never. Measured, the rounding of
            an answer depends on the measurement.
        max_model_len: Longest prompt plus answer in tokens; 0 means the model's own limit.
        max_num_seqs: Most requests running at once.
        max_num_batched_tokens: Most tokens in one step.
        max_chunk_seconds: Longest that chunks of prompts may hold up a step which streams wait for,
            four times that where none is open, twice where only jobs run; steps are sized by
            measured speed. 0 sets no limit beside `max_num_batched_tokens`.
        max_queued_requests: Most requests waiting.
        max_queued_tokens: Most prompt tokens waiting.
        max_live_edits: Most distinct interventions live at once over all requests.
        block_size: Tokens in one cache block.
        kv_cache_bytes: Memory for keys and values; 0 means a share of what is free.
        enable_prefix_cache: Reuse keys and values of equal prefixes under equal steering.
        prompt_lookup_tokens: Most tokens that a decoding request runs ahead on a guess from its own
            text, verified in the same step; 0 guesses none.
        stream_queue_size: Outputs a slow reader may be behind before its request is failed.
        step_timeout_seconds: Longest time without progress, within a step or between steps, before
            the engine counts as hung; that a step is long means nothing.
        cuda_graphs: `auto`: on one CUDA device, decode steps that recur are captured and replayed;
            `off`: none are.
        seed: Seed of the seeds drawn for requests that give none; None draws from the system.
        chat_template: Name of the model's template, or file of Jinja, for chats that name none;
            None means the one called `default`.
        thinking_markers: Tokens that open and close a thought; None finds those of known families.
    """

    model: str
    served_name: str | None = None
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    device_map: str = "none"
    num_threads: int = 0
    pack_weights: bool = True
    generation_config: Literal["model", "none"] = "model"
    decode_weights: Literal["auto", "off", "float16"] = "auto"
    max_model_len: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_chunk_seconds: float = 0.5
    max_queued_requests: int = 1024
    max_queued_tokens: int = 1_000_000
    max_live_edits: int = 1024
    block_size: int = 16
    kv_cache_bytes: int = 0
    enable_prefix_cache: bool = True
    prompt_lookup_tokens: int = 0
    stream_queue_size: int = 1024
    step_timeout_seconds: float = 30.0
    cuda_graphs: Literal["auto", "off"] = "auto"
    seed: int | None = None
    chat_template: str | None = None
    thinking_markers: tuple[str, str] | None = None


class Engine(Protocol):
    """Serves many requests at once, each under its own steering."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back; safe to use from any thread."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        """Generate; the last output, and only it, has a `finish_reason`.

        The request is validated and queued when the iterator is first awaited. Closing the
        iterator aborts the request within one step.

        Raises:
            RequestRejectedError: Before the first output: refused at admission.
            GenerationError: This request failed.
            EngineDeadError: The step failed as a whole.
        """
        ...

    async def capture(self, request: CaptureRequest) -> CaptureResult:
        """Read activations at sites for prompts; raises as `generate`."""
        ...

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Log-probabilities of known text under some steering; raises as `generate`."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request within one step; unknown ids are ignored."""
        ...

    def info(self) -> EngineInfo:
        """The facts that are fixed after load."""
        ...

    def stats(self) -> EngineStats:
        """A snapshot of the numbers that change while serving."""
        ...

    async def drain(self, timeout_seconds: float) -> None:
        """Refuse new requests, let running ones finish, fail those left at the timeout."""
        ...


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """All results in order; the first that fails, whichever it is, ends the others.

    It returns only when all have ended, so what they asked of an engine is no longer asked.
    `asyncio.gather` leaves the others running, and a loop that awaits one after another does not
    see a failure before its turn.

    Raises:
        Exception: That of the one that failed first, as it was raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except* Exception as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
