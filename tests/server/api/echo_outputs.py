"""What the echo engine answers: bytes of the prompt, and everything that is said of them."""

from __future__ import annotations

import re

from server.engine.outputs import (
    FinishReason,
    GateState,
    MonitorReading,
    RequestOutput,
    SplitText,
    SteeredTokens,
    TokenLogprob,
    TokenLogprobs,
)
from server.engine.request import GenerationRequest
from server.engine.text import Detokenizer
from steering.documents import PositionContext

from .byte_tokenizer import END, START, VOCAB_SIZE, ByteTokenizer

__all__ = ["answer_ids", "echo_outputs"]


def answer_ids(request: GenerationRequest) -> list[int]:
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


def echo_outputs(
    tokenizer: ByteTokenizer, request: GenerationRequest, answer: list[int], forgets_steering: bool
) -> list[RequestOutput]:
    """What `generate` yields, token by token."""
    sampling, num_prompt = request.sampling, len(request.prompt_token_ids)
    steered = _steered(request, num_prompt + len(answer), forgets_steering)
    outputs: list[RequestOutput] = []
    text = Detokenizer(
        tokenizer.decode,
        request.prompt_token_ids,
        sampling.stop,
        skipped_ids=frozenset({START, END}),
    )
    split = None
    if request.is_thinking is not None and b"think>" in bytes(i for i in answer if i < 256):
        split = _Split(answer, request.is_thinking)
    for index in range(max(len(answer), 1)):
        token = answer[index] if answer else None
        is_end = token in (None, END) or token in sampling.stop_token_ids
        new = ""
        if token is not None and not is_end:
            byte = bytes([token])
            new = text.add(byte.upper()[0] if steered[num_prompt + index - 1] else token)
        stop = text.stop_reason
        is_last = is_end or stop is not None or index == len(answer) - 1
        finish = None
        if is_last:
            new += text.finish()
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
                gates=_gates(request) if is_last else (),
                split=None if split is None else split.split(new),
                num_thought_tokens=0 if split is None else sum(split.is_thought[: index + 1]),
            )
        )
        if is_last:
            return outputs
    return outputs


class _Split:
    """Thought and answer of a text, in which `<think>` and `</think>` are markers."""

    def __init__(self, answer: list[int], is_thinking: bool) -> None:
        """Bytes that are no ASCII are characters of their own here; tests have none in thoughts."""
        self.is_thought: list[bool] = []
        self._kept: list[bool] = []
        self._position = 0
        text = bytes(i for i in answer if i < 256).decode("latin-1")
        for piece in re.split("(</?think>)", text):
            is_marker = piece == ("</think>" if is_thinking else "<think>")
            self.is_thought += [is_thinking or is_marker] * len(piece)
            self._kept += [not is_marker] * len(piece)
            is_thinking ^= is_marker

    def split(self, text: str) -> SplitText:
        found = {True: "", False: ""}
        for place, character in enumerate(text, self._position):
            if place >= len(self._kept) or self._kept[place]:
                found[place < len(self._kept) and self.is_thought[place]] += character
        self._position += len(text)
        return SplitText(found[True], found[False])


def _steered(request: GenerationRequest, num_tokens: int, forgets_steering: bool) -> list[bool]:
    plan = request.plan
    if plan is None or not plan.interventions or forgets_steering:
        return [False] * num_tokens
    boundary = request.steering_prompt_tokens
    num_prompt = len(request.prompt_token_ids)
    regions = bytearray(request.prompt_regions or b"")
    regions += bytes([5]) * (num_tokens - len(regions))
    open_gates = {gate.key for gate in plan.latches if gate.is_open(_score(request))}
    context = PositionContext(num_prompt if boundary is None else boundary, regions, open_gates)
    columns = [i for i, item in enumerate(plan.interventions) if not item.has_token_gate]
    return [bool(row.any()) for row in plan.gains(0, num_tokens, context)[:, columns]]


def _score(request: GenerationRequest) -> float:
    """Of every gate per request: how many exclamation marks its prompt has."""
    return float(request.prompt_token_ids.count(ord("!")))


def _gates(request: GenerationRequest) -> tuple[GateState | None, ...]:
    """Gates per token are closed."""
    items = () if request.plan is None else request.plan.interventions
    states: list[GateState | None] = []
    for item in items:
        if item.latch is not None:
            states.append(GateState(item.latch.is_open(_score(request)), score=_score(request)))
        else:
            closed = GateState(False, open_tokens=SteeredTokens())
            states.append(closed if item.has_token_gate else None)
    return tuple(states)


def _monitors(request: GenerationRequest, stop: int) -> tuple[MonitorReading, ...]:
    positions = tuple(range(len(request.prompt_token_ids) - 1, stop))
    scores = tuple(position / 10 for position in positions)
    planned = () if request.plan is None else request.plan.monitors
    return tuple(MonitorReading(positions, scores) for _ in planned)


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
