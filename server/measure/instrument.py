"""Measuring a served model at job priority, beside its traffic."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from server.engine.engine import Engine, gather_or_cancel
from server.engine.errors import QueueFullError
from server.engine.outputs import CaptureResult, MonitorReading, RequestOutput, ScoreResult
from server.engine.request import CaptureRequest, GenerationRequest, Pooling, Priority, ScoreRequest
from server.engine.sampling import SamplingParams
from server.engine.text import Tokenizer
from server.pools import Compute
from steering.plan import SteeringPlan
from steering.sites import SitePoint

from .next_token import kl_divergences, token_log_odds

_T = TypeVar("_T")
_GREEDY: Final = SamplingParams(temperature=0.0)
_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 2.0

Prompts = Sequence[tuple[int, ...]]
"""Token ids of each prompt."""

OnProgress = Callable[[int, int], Awaitable[None]]
"""Awaited with how many of how many are done."""


class Instrument:
    """Captures, answers and scores of many prompts, in batches, over any engine.

    Only one batch is in the engine's queue at a time: chat requests overtake it, and a cancelled
    caller leaves at most one batch behind, which the engine drops within one step. A full queue is
    waited for. Prompts are token ids; every method raises what the engine raises.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str = "measure",
        batch_size: int = 32,
        on_batch: OnProgress | None = None,
        compute: Compute | None = None,
    ) -> None:
        """Measure on `engine`.

        Args:
            engine: The engine to ask.
            name: The beginning of its requests' ids; unique among all that run.
            batch_size: Most prompts in the engine's queue at once.
            on_batch: Awaited after every batch with how many prompts of how many are done.
            compute: Runs what is computed beside the engine, such as divergences; None computes on
                the event loop, for programs that serve nobody.
        """
        self._engine = engine
        self._name = name
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._ids = count()
        self.compute = compute or _run_inline

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's tokenizer."""
        return self._engine.tokenizer

    @property
    def max_model_len(self) -> int:
        """Most tokens that prompt and answer may have together."""
        return self._engine.info().max_model_len

    async def capture(
        self,
        prompts: Prompts,
        points: Sequence[SitePoint],
        *,
        pooling: Pooling = Pooling.LAST,
        windows: Sequence[tuple[int, int]] | None = None,
        indices: Sequence[int] | None = None,
        plan: SteeringPlan | None = None,
        steering_prompt_tokens: Sequence[int] | None = None,
    ) -> CaptureResult:
        """Return activations before any edit at `points`; arguments as in `CaptureRequest`."""
        request = CaptureRequest(
            request_id="",
            prompts=tuple(prompts),
            points=tuple(points),
            pooling=pooling,
            indices=None if indices is None else tuple(indices),
            plan=plan,
            windows=None if windows is None else tuple(windows),
            steering_prompt_tokens=_tuple(steering_prompt_tokens),
        )

        async def one(rows: slice) -> CaptureResult:
            return await self._engine.capture(
                replace(
                    request,
                    request_id=self._next_id(),
                    prompts=request.prompts[rows],
                    indices=_part(request.indices, rows),
                    windows=_part(request.windows, rows),
                    steering_prompt_tokens=_part(request.steering_prompt_tokens, rows),
                )
            )

        parts = await self._in_batches(len(prompts), one)
        return CaptureResult(
            pooled={
                point: torch.cat([part.pooled[point] for part in parts])
                for point in (parts[0].pooled if parts else ())
            },
            sequences={
                point: tuple(rows for part in parts for rows in part.sequences[point])
                for point in (parts[0].sequences if parts else ())
            },
        )

    async def score(
        self,
        prompts: Prompts,
        *,
        windows: Sequence[tuple[int, int]] | None = None,
        full: bool = False,
        plan: SteeringPlan | None = None,
        steering_prompt_tokens: Sequence[int] | None = None,
    ) -> ScoreResult:
        """Return natural-log probabilities of known text; arguments as in `ScoreRequest`."""
        request = ScoreRequest(
            request_id="",
            prompts=tuple(prompts),
            plan=plan,
            windows=None if windows is None else tuple(windows),
            full=full,
            steering_prompt_tokens=_tuple(steering_prompt_tokens),
        )

        async def one(rows: slice) -> ScoreResult:
            return await self._engine.score(
                replace(
                    request,
                    request_id=self._next_id(),
                    prompts=request.prompts[rows],
                    windows=_part(request.windows, rows),
                    steering_prompt_tokens=_part(request.steering_prompt_tokens, rows),
                )
            )

        parts = await self._in_batches(len(prompts), one)
        return ScoreResult(
            token_logprobs=tuple(values for part in parts for values in part.token_logprobs),
            distributions=tuple(rows for part in parts for rows in part.distributions),
        )

    async def answers(
        self,
        prompts: Prompts,
        *,
        plan: SteeringPlan | None = None,
        max_tokens: int = 128,
        sampling: SamplingParams = _GREEDY,
    ) -> list[str]:
        """Return the texts of the model's answers; greedy unless `sampling` says otherwise."""
        chosen = replace(sampling, max_tokens=max_tokens)
        requests = [GenerationRequest("", prompt, chosen, plan) for prompt in prompts]
        found = await self._generated(requests)
        return ["".join(output.text for output in outputs) for outputs in found]

    async def completions(
        self, prompts: Prompts, *, plan: SteeringPlan | None = None, max_tokens: int = 128
    ) -> list[tuple[int, ...]]:
        """Return the tokens of greedy answers, an end token included."""
        chosen = replace(_GREEDY, max_tokens=max_tokens)
        requests = [GenerationRequest("", prompt, chosen, plan) for prompt in prompts]
        found = await self._generated(requests)
        return [tuple(t for output in outputs for t in output.token_ids) for outputs in found]

    async def readings(
        self, requests: Sequence[GenerationRequest]
    ) -> list[tuple[MonitorReading, ...]]:
        """Return what the monitors of each request's plan read; nothing is generated.

        The requests' ids, sampling and priority are replaced.
        """
        silent = SamplingParams(max_tokens=0)
        found = await self._generated([replace(request, sampling=silent) for request in requests])
        return [outputs[-1].monitors for outputs in found]

    async def perplexity(
        self,
        texts: Prompts,
        *,
        plan: SteeringPlan | None = None,
        windows: Sequence[tuple[int, int]] | None = None,
        steering_prompt_tokens: Sequence[int] | None = None,
    ) -> float:
        """Return exp of the mean negative log-probability (nats) of the known tokens of all texts.

        A window [start, stop) holds the positions that predict: it scores the tokens start + 1 to
        stop.
        """
        found = await self.score(
            texts, windows=windows, plan=plan, steering_prompt_tokens=steering_prompt_tokens
        )
        values = [value for text in found.token_logprobs for value in text]
        return math.exp(-math.fsum(values) / len(values))

    async def next_token(self, prompts: Prompts, plan: SteeringPlan | None = None) -> Tensor:
        """Return natural-log probabilities after each prompt's last token, [N, vocab] float32."""
        windows = [(len(prompt) - 1, len(prompt)) for prompt in prompts]
        found = await self.score(prompts, windows=windows, full=True, plan=plan)
        return torch.cat(found.distributions)

    async def kl(
        self, prompts: Prompts, plan: SteeringPlan | None, *, plain: Tensor | None = None
    ) -> list[float]:
        """Return KL(unsteered || steered), in nats, of each prompt's first answer token.

        A plan that acts on generated tokens alone leaves that distribution as it is: 0.

        Args:
            prompts: Token ids of each prompt.
            plan: The steering.
            plain: What `next_token` returned for the prompts unsteered; None measures it.
        """
        if plain is None:
            plain = await self.next_token(prompts)
        edited = await self.next_token(prompts, plan)
        return await self.compute(kl_divergences, plain, edited)

    async def log_odds(
        self, prompts: Prompts, token_ids: Sequence[int], plan: SteeringPlan | None = None
    ) -> list[float]:
        """Return log P - log(1 - P) of each prompt.

        P is the probability that its answer begins with one of `token_ids`.
        """
        found = await self.next_token(prompts, plan)
        return await self.compute(token_log_odds, found, token_ids)

    async def _generated(self, requests: Sequence[GenerationRequest]) -> list[list[RequestOutput]]:
        async def one(rows: slice) -> list[list[RequestOutput]]:
            return await gather_or_cancel(self._outputs(request) for request in requests[rows])

        return [found for part in await self._in_batches(len(requests), one) for found in part]

    async def _outputs(self, request: GenerationRequest) -> list[RequestOutput]:
        own = replace(request, request_id=self._next_id(), priority=Priority.JOB)
        return [output async for output in self._engine.generate(own)]

    def _next_id(self) -> str:
        return f"{self._name}-{next(self._ids)}"

    async def _in_batches(self, total: int, one: Callable[[slice], Awaitable[_T]]) -> list[_T]:
        parts = []
        for start in range(0, total, self._batch_size):
            stop = min(start + self._batch_size, total)
            parts.append(await _retry_while_full(one, slice(start, stop)))
            if self._on_batch is not None:
                await self._on_batch(stop, total)
        return parts


async def _retry_while_full(one: Callable[[slice], Awaitable[_T]], rows: slice) -> _T:
    """Return what `one` gives for `rows`, asking again for as long as the engine's queue is full.

    Chats fill the queue, and jobs wait for them: nothing but cancelling ends the wait.
    """
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return await one(rows)
        except QueueFullError:
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


async def _run_inline(function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
    return function(*args, **kwargs)


def _tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


def _part(values: tuple[_T, ...] | None, rows: slice) -> tuple[_T, ...] | None:
    return None if values is None else values[rows]
