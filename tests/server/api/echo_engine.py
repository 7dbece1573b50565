"""An engine without a model: it answers with the prompt's last user text, one byte a token.

Steering is real as far as the plan goes: which tokens are steered is computed from it, and a
steered byte is written in upper case, so that a test sees in the text what was applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from server.engine.errors import (
    EngineDrainingError,
    PromptTooLongError,
    QueueFullError,
    RequestAbortedError,
)
from server.engine.outputs import (
    CaptureResult,
    EngineInfo,
    EngineStats,
    RequestOutput,
    ScoreResult,
    StepSeconds,
)
from server.engine.request import CaptureRequest, GenerationRequest, ScoreRequest
from server.engine.sampling import SamplingDefaults
from steering.model_spec import ModelSpec
from steering.sites import Site, SitePoint

from .byte_tokenizer import VOCAB_SIZE, ByteTokenizer
from .echo_outputs import answer_ids, echo_outputs

MODEL = "echo"
SPEC = ModelSpec(
    name=MODEL,
    family="llama",
    fingerprint="f" * 64,
    num_layers=4,
    hidden_size=8,
    num_heads=2,
    head_dim=4,
    unavailable_sites={Site.RESID_MID: "its residual is parallel"},
    resid_norms={SitePoint(layer, Site.RESID_POST): 2.0 + layer for layer in range(4)},
)


@dataclass
class Faults:
    """What goes wrong, on purpose.

    `errors[k]` is raised instead of the k-th token; `gate`, where set, is waited for before every
    token from `gate_from` on.
    """

    errors: dict[int, Exception] = field(default_factory=dict)
    only_choice: int | None = None
    only_text: str | None = None
    gate: asyncio.Event | None = None
    gate_from: int = 0
    forgets_steering: bool = False


class EchoEngine:
    def __init__(self, max_model_len: int = 2048, max_waiting: int = 64) -> None:
        self.faults = Faults()
        self.requests: list[GenerationRequest] = []
        self.running: set[str] = set()
        self.aborted: list[str] = []
        self.is_draining = False
        self.is_healthy = True
        self.seconds_since_progress = 0.0
        self.num_waiting = 0
        self._max_waiting = max_waiting
        self._tokenizer = ByteTokenizer()
        self._idle = asyncio.Event()
        self._cut = asyncio.Event()
        self._arrival = asyncio.Event()
        self._num_waiting = 0
        self._info = EngineInfo(
            model_name=MODEL,
            spec=SPEC,
            max_model_len=max_model_len,
            max_num_seqs=64,
            max_num_batched_tokens=2048,
            max_live_edits=64,
            vocab_size=VOCAB_SIZE,
            dtype="float32",
            device="cpu",
            num_threads=1,
            num_kv_blocks=64,
            block_size=16,
        )

    @property
    def tokenizer(self) -> ByteTokenizer:
        return self._tokenizer

    def info(self) -> EngineInfo:
        return self._info

    def recommend(self, defaults: SamplingDefaults) -> None:
        """As if the model's files had these sampling defaults."""
        self._info = replace(self._info, sampling=defaults)

    def stats(self) -> EngineStats:
        return EngineStats(
            num_requests_running=len(self.running),
            num_requests_waiting=self.num_waiting,
            kv_cache_usage_ratio=0.25,
            num_preemptions=0,
            prefix_cache_queries=0,
            prefix_cache_hits=0,
            num_drafted_tokens=0,
            num_accepted_tokens=0,
            num_live_edits=0,
            step_seconds=StepSeconds((1.0,), (len(self.requests), 0), 0.0),
            steps_by_mode={},
            seconds_since_progress=self.seconds_since_progress,
            is_healthy=self.is_healthy,
            is_draining=self.is_draining,
        )

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    async def capture(self, request: CaptureRequest) -> CaptureResult:
        raise NotImplementedError

    async def score(self, request: ScoreRequest) -> ScoreResult:
        raise NotImplementedError

    async def has_running(self, count: int) -> None:
        """Wait until `count` requests are at their gate."""
        while self._num_waiting < count:
            self._arrival.clear()
            await self._arrival.wait()

    async def drain(self, timeout_seconds: float) -> None:
        self.is_draining = True
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.running:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            self._cut.set()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        answer = self._admit(request)
        self.requests.append(request)
        self.running.add(request.request_id)
        is_finished = False
        try:
            forgets = self.faults.forgets_steering
            outputs = echo_outputs(self._tokenizer, request, answer, forgets)
            for index, output in enumerate(outputs):
                await self._step(index, request)
                is_finished = output.finish_reason is not None
                yield output
        finally:
            if not is_finished:
                self.aborted.append(request.request_id)
            self.running.discard(request.request_id)
            self._idle.set()

    def _admit(self, request: GenerationRequest) -> list[int]:
        if self.is_draining:
            raise EngineDrainingError("draining")
        if len(self.running) >= self._max_waiting:
            raise QueueFullError("full")
        num_prompt, limit = len(request.prompt_token_ids), self._info.max_model_len
        wanted = request.sampling.max_tokens
        if num_prompt + (wanted or 0) > limit:
            raise PromptTooLongError(
                f"{num_prompt} prompt tokens and max_tokens {wanted} exceed {limit}",
                param="max_tokens",
            )
        room = limit - num_prompt if wanted is None else wanted
        return answer_ids(request)[:room]

    async def _step(self, index: int, request: GenerationRequest) -> None:
        await asyncio.sleep(0)
        faults = self.faults
        is_hit = faults.only_choice in (None, request.choice_index)
        if faults.only_text is not None:
            is_hit = faults.only_text in self._tokenizer.decode(request.prompt_token_ids)
        if index in faults.errors and is_hit:
            raise faults.errors[index]
        if faults.gate is not None and index >= faults.gate_from:
            self._num_waiting += 1
            self._arrival.set()
            waits = [asyncio.ensure_future(e.wait()) for e in (faults.gate, self._cut)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._num_waiting -= 1
                for wait in waits:
                    wait.cancel()
            if self._cut.is_set():
                raise RequestAbortedError("cut")


__all__ = ["MODEL", "SPEC", "EchoEngine", "Faults"]
