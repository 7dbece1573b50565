"""An engine without a model: it answers with the prompt's last user text, one byte a token.

Steering is real as far as the plan goes: which tokens are steered is computed from it, and a
steered byte is written in upper case, so that a test sees in the text what was applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from server.engine.engine import Engine
from server.engine.errors import (
    EngineDrainingError,
    EngineError,
    PromptTooLongError,
    QueueFullError,
    RequestAbortedError,
)
from server.engine.outputs import (
    CaptureResult,
    EngineInfo,
    EngineStats,
    FinishReason,
    MonitorReading,
    RequestOutput,
    SteeredTokens,
    TokenLogprob,
    TokenLogprobs,
)
from server.engine.request import CaptureRequest, GenerationRequest
from steering.model_spec import ModelSpec
from steering.scopes import PositionContext
from steering.sites import Site, SitePoint

from .byte_tokenizer import END, START, VOCAB_SIZE, ByteTokenizer

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
        self.seconds_since_step = 0.0
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

    def stats(self) -> EngineStats:
        return EngineStats(
            num_requests_running=len(self.running),
            num_requests_waiting=0,
            kv_cache_usage_ratio=0.25,
            num_preemptions=0,
            prefix_cache_queries=0,
            prefix_cache_hits=0,
            num_live_edits=0,
            num_steps=len(self.requests),
            seconds_since_step=self.seconds_since_step,
            is_healthy=self.is_healthy,
            is_draining=self.is_draining,
        )

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    async def capture(self, request: CaptureRequest) -> CaptureResult:
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
            for index, output in enumerate(_outputs(self._tokenizer, request, answer, self.faults)):
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
        return _answer(request)[:room]

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


def _answer(request: GenerationRequest) -> list[int]:
    """The text of the last user turn; of a bare prompt, all of it; then the end token."""
    ids = list(request.prompt_token_ids)
    if ids and START in ids:
        starts = [index for index, token_id in enumerate(ids) if token_id == START]
        turns = [ids[a + 1 : b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
        users = [turn for turn in turns if bytes(i for i in turn if i < 256).startswith(b"user\n")]
        turn = users[-1][len(b"user\n") :] if users else []
        ids = turn[: turn.index(END)] if END in turn else turn
    suffix = list(f" #{request.choice_index}".encode()) if request.choice_index else []
    answer = [token_id for token_id in [*ids, *suffix] if token_id < 256]
    if request.sampling.ignore_eos:
        most = request.sampling.max_tokens or 8
        return (answer * (most // max(len(answer), 1) + 1))[:most]
    return [*answer, END]


def _outputs(
    tokenizer: ByteTokenizer, request: GenerationRequest, answer: list[int], faults: Faults
) -> list[RequestOutput]:
    """What `generate` yields, token by token."""
    sampling, num_prompt = request.sampling, len(request.prompt_token_ids)
    steered = _steered(request, num_prompt + len(answer), faults)
    outputs: list[RequestOutput] = []
    pending, text = b"", ""
    for index in range(max(len(answer), 1)):
        token = answer[index] if answer else None
        is_end = token in (None, END) or token in sampling.stop_token_ids
        if token is not None and token < 256:
            byte = bytes([token])
            pending += byte.upper() if steered[num_prompt + index - 1] else byte
        new, pending = _characters(pending)
        stop = next((s for s in sampling.stop if s in text + new), None)
        if stop is not None:
            new = (text + new).split(stop)[0][len(text) :]
        text += new
        is_last = is_end or stop is not None or index == len(answer) - 1
        finish = None
        if is_last:
            finish = FinishReason.STOP if (is_end and token) or stop else FinishReason.LENGTH
        outputs.append(
            RequestOutput(
                request_id=request.request_id,
                text=new,
                token_ids=() if token is None else (token,),
                num_prompt_tokens=num_prompt,
                num_output_tokens=0 if token is None else index + 1,
                logprobs=_logprobs(tokenizer, token, sampling.logprobs),
                finish_reason=finish,
                stop_reason=stop,
                prompt_logprobs=_prompt_logprobs(tokenizer, request) if index == 0 else None,
                steered_tokens=SteeredTokens(
                    prompt=sum(steered[:num_prompt]),
                    generated=sum(steered[num_prompt : num_prompt + index]),
                ),
                monitors=_monitors(request, num_prompt + index) if is_last else (),
            )
        )
        if is_last:
            return outputs
    return outputs


def _steered(request: GenerationRequest, num_tokens: int, faults: Faults) -> list[bool]:
    plan = request.plan
    if plan is None or not plan.interventions or faults.forgets_steering:
        return [False] * num_tokens
    boundary = request.steering_prompt_tokens
    num_prompt = len(request.prompt_token_ids)
    regions = bytearray(request.prompt_regions or b"")
    regions += bytes([5]) * (num_tokens - len(regions))
    context = PositionContext(num_prompt if boundary is None else boundary, regions)
    return [bool(row.any()) for row in plan.gains(0, num_tokens, context)]


def _monitors(request: GenerationRequest, stop: int) -> tuple[MonitorReading, ...]:
    positions = tuple(range(len(request.prompt_token_ids) - 1, stop))
    scores = tuple(position / 10 for position in positions)
    planned = () if request.plan is None else request.plan.monitors
    return tuple(MonitorReading(positions, scores) for _ in planned)


def _characters(pending: bytes) -> tuple[str, bytes]:
    """The whole characters of `pending`, and the bytes of a split one."""
    for cut in range(len(pending), max(len(pending) - 4, -1), -1):
        try:
            return pending[:cut].decode(), pending[cut:]
        except UnicodeDecodeError:
            continue
    return pending.decode(errors="replace"), b""


def _logprobs(
    tokenizer: ByteTokenizer, token: int | None, count: int | None
) -> tuple[TokenLogprobs, ...]:
    if count is None or token is None:
        return ()
    return (_token_logprobs(tokenizer, token, count),)


def _prompt_logprobs(
    tokenizer: ByteTokenizer, request: GenerationRequest
) -> tuple[TokenLogprobs | None, ...] | None:
    count = request.sampling.prompt_logprobs
    if count is None:
        return None
    rest = request.prompt_token_ids[1:]
    return (None, *(_token_logprobs(tokenizer, token, count) for token in rest))


def _token_logprobs(tokenizer: ByteTokenizer, token: int, count: int) -> TokenLogprobs:
    """The token itself is likeliest, then its successors; an odd one is not among the top."""
    first = token if token % 2 == 0 else token + 1
    top = [(first + rank) % VOCAB_SIZE for rank in range(count)]
    entries = [
        TokenLogprob(t, tokenizer.token_text(t), -0.125 * (rank + 1)) for rank, t in enumerate(top)
    ]
    chosen = next((e for e in entries if e.token_id == token), None)
    text = tokenizer.token_text(token)
    return TokenLogprobs(chosen or TokenLogprob(token, text, -7.5), tuple(entries))


def _is_engine(engine: EchoEngine) -> Engine:
    return engine  # type: ignore[return-value]


__all__ = ["MODEL", "SPEC", "EchoEngine", "EngineError", "Faults"]
