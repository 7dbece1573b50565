"""One generation request while it runs: its sequences side by side, and its measurements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog

from server.api.deps import AnswerIdentity, Services
from server.auth.permissions import Principal
from server.engine.engine import Engine
from server.engine.errors import NonFiniteOutputError, SlowClientError
from server.engine.outputs import AppliedTemplate, RequestOutput
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from server.metrics import Metrics
from server.resolver.resolution import ResolvedSteering

from .convert import engine_requests
from .outputs import ChoiceOutput, check_steering_applied, steering_report, template_report, usage
from .prompts import Prompt

_Outputs = AsyncGenerator[tuple[int, RequestOutput], None]
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class GenerationRun:
    """The sequences of one request: the choices asked for, then their unsteered baselines.

    Attributes:
        engine: Runs them.
        metrics: Count its tokens and its time.
        identity: Begins its answer, and each chunk of a streamed one.
        steering: What the choices are steered by.
        requests: One per choice, choices of one prompt beside each other.
        num_per_prompt: Choices of one prompt.
        template: How its chat was rendered, where the answer is to say so.
        baselines: The same without steering, where a comparison is asked for.
        sequences: The outputs so far of `requests`, and then of `baselines`.
    """

    engine: Engine
    metrics: Metrics
    identity: AnswerIdentity
    steering: ResolvedSteering
    requests: Sequence[GenerationRequest]
    num_per_prompt: int
    baselines: Sequence[GenerationRequest] = ()
    template: AppliedTemplate | None = None
    sequences: list[ChoiceOutput] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.requests) + len(self.baselines)
        self.sequences = [ChoiceOutput(index % self.num_per_prompt == 0) for index in range(count)]

    @property
    def choices(self) -> list[ChoiceOutput]:
        """The outputs of the choices asked for."""
        return self.sequences[: len(self.requests)]

    @property
    def baseline_choices(self) -> list[ChoiceOutput]:
        """The outputs of their unsteered counterparts."""
        return self.sequences[len(self.requests) :]

    @property
    def is_finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(output.finish_reason is not None for output in self.sequences)

    def usage(self) -> dict[str, Any]:
        """Count the tokens of the choices asked for, so far."""
        return usage(self.choices)

    def report(self) -> dict[str, Any]:
        """Return the answer's `steering` object, so far."""
        return steering_report(self.steering, self.choices)

    def reports(self) -> dict[str, Any]:
        """Return the members of an answer that say how it came about: its steering, its prompt."""
        template = self.template
        if template is None:
            return {"steering": self.report()}
        return {"steering": self.report(), "chat_template": template_report(template)}

    async def finish(self) -> None:
        """Run every sequence to its end."""
        async with aclosing(self.outputs()) as outputs:
            async for _ in outputs:
                pass

    async def outputs(self) -> _Outputs:
        """Yield each output with the index of its sequence, once it has been added to `sequences`.

        Raises:
            EngineError: As `Engine.generate`.
            SteeringNotAppliedError: Steering was asked for, was due, and acted on no token.
        """
        watch = _Stopwatch(self.metrics, len(self.sequences))
        finish = "abort"  # unless something else happens: closing the generator is a disconnect
        try:
            requests = [*self.requests, *self.baselines]
            async with aclosing(_generate_all(self.engine, requests)) as outputs:
                async for index, output in outputs:
                    self.sequences[index].add(output)
                    watch.output(index, len(output.token_ids))
                    if output.finish_reason is not None and index < len(self.requests):
                        check_steering_applied(self.requests[index], output, self.metrics)
                    if self.is_finished:
                        finish = str(output.finish_reason)
                    yield index, output
        except Exception as error:
            finish = "slow_client" if isinstance(error, SlowClientError) else "error"
            if isinstance(error, NonFiniteOutputError):
                self.metrics.nonfinite.labels(self.steering.label).inc()
            raise
        finally:
            self._record(finish, watch)

    def _record(self, finish: str, watch: _Stopwatch) -> None:
        label, metrics = self.steering.label, self.metrics
        counted = self.usage()
        metrics.requests.labels(finish).inc()
        metrics.profile_requests.labels(label, str(self.steering.version or "")).inc()
        metrics.prompt_tokens.labels(label).inc(counted["prompt_tokens"])
        metrics.generation_tokens.labels(label).inc(counted["completion_tokens"])
        steered = [output.steered_tokens for output in self.choices]
        metrics.applied_tokens.labels(label).inc(sum(s.prompt + s.generated for s in steered))
        metrics.request_latency.observe(watch.seconds)
        _log.info(
            "generation",
            id=self.identity.id,
            finish=finish,
            steering=self.steering.header,
            strength=self.steering.strength,
            seconds=round(watch.seconds, 4),
            choices=len(self.requests),
            prompt_tokens=counted["prompt_tokens"],
            completion_tokens=counted["completion_tokens"],
        )


def prepare_run(
    services: Services,
    caller: Principal,
    identity: AnswerIdentity,
    prompts: Sequence[Prompt],
    sampling: SamplingParams,
    steering: ResolvedSteering,
    *,
    num_choices: int,
    template: AppliedTemplate | None = None,
) -> GenerationRun:
    """Make a run of `num_choices` choices of each prompt; it begins when its outputs are read.

    The answer says how its chat was rendered where `template` is given.

    Raises:
        NoEffectError, InvalidFieldError: As `engine_requests`.
    """
    asked = engine_requests(
        *(services.engine, identity.id, prompts, sampling, steering),
        num_choices=num_choices,
        cache_salt=caller.cache_salt,
    )
    return GenerationRun(
        *(services.engine, services.metrics, identity, steering),
        requests=asked.requests,
        num_per_prompt=num_choices,
        baselines=asked.baselines,
        template=template,
    )


class _Stopwatch:
    """Measures the times of one request on the monotonic clock."""

    def __init__(self, metrics: Metrics, num_sequences: int) -> None:
        self._metrics = metrics
        self._start = time.monotonic()
        self._last: list[float | None] = [None] * num_sequences
        self._has_output = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def output(self, index: int, num_tokens: int) -> None:
        now = time.monotonic()
        if not self._has_output:
            self._has_output = True
            self._metrics.time_to_first_token.observe(now - self._start)
        last = self._last[index]
        if last is not None and num_tokens:
            self._metrics.inter_token_latency.observe((now - last) / num_tokens)
        self._last[index] = now


async def _generate_all(engine: Engine, requests: Sequence[GenerationRequest]) -> _Outputs:
    """Yield the outputs of every sequence as they come, each with its index.

    The first sequence that fails ends all of them. Closing the generator aborts what still runs.

    Raises:
        EngineError: As `Engine.generate`.
    """
    if len(requests) == 1:
        async with aclosing(_outputs_of(engine, requests[0])) as outputs:
            async for output in outputs:
                yield 0, output
        return
    # One place a sequence: a reader that lags holds back the pumps, and the engine's own bounded
    # queues decide when that is too slow.
    queue: asyncio.Queue[tuple[int, RequestOutput | Exception]] = asyncio.Queue(len(requests))
    pumps = [
        asyncio.create_task(_pump(engine, request, index, queue))
        for index, request in enumerate(requests)
    ]
    try:
        num_running = len(requests)
        while num_running:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            num_running -= item.finish_reason is not None
            yield index, item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    engine: Engine,
    request: GenerationRequest,
    index: int,
    queue: asyncio.Queue[tuple[int, RequestOutput | Exception]],
) -> None:
    try:
        async with aclosing(_outputs_of(engine, request)) as outputs:
            async for output in outputs:
                await queue.put((index, output))
    except Exception as error:  # carried to the reader, who raises it
        await queue.put((index, error))


async def _outputs_of(
    engine: Engine, request: GenerationRequest
) -> AsyncGenerator[RequestOutput, None]:
    outputs = engine.generate(request)
    try:
        async for output in outputs:
            yield output
            if output.finish_reason is not None:
                return
        raise AssertionError(f"the engine ended {request.request_id} without a finish reason")
    finally:
        if isinstance(outputs, AsyncGenerator):
            await outputs.aclose()
        else:
            engine.abort(request.request_id)
