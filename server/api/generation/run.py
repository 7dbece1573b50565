"""One generation request while it runs: its sequences, what they came to, what was measured."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog

from server.engine.engine import Engine
from server.engine.errors import NonFiniteOutputError, SlowClientError
from server.engine.outputs import RequestOutput
from server.engine.request import GenerationRequest
from server.metrics import Metrics
from server.resolver.resolution import ResolvedSteering

from .applied import check_applied, steering_report
from .generation import generate_all
from .tally import Tally, usage

__all__ = ["Head", "Run"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of an answer repeats."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    def document(self, kind: str) -> dict[str, Any]:
        """The members, with `object` set to `kind`."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


@dataclass(slots=True)
class Run:
    """The sequences of one request: the choices asked for, then their unsteered baselines.

    Attributes:
        engine: Runs them.
        metrics: Told what happens.
        head: Of the answer.
        steering: What the choices are steered by.
        requests: One per choice, choices of one prompt beside each other.
        num_per_prompt: Choices of one prompt.
        baselines: The same without steering, where a comparison is asked for.
        tallies: What each sequence came to, in the order of `requests` and then `baselines`.
    """

    engine: Engine
    metrics: Metrics
    head: Head
    steering: ResolvedSteering
    requests: Sequence[GenerationRequest]
    num_per_prompt: int
    baselines: Sequence[GenerationRequest] = ()
    tallies: list[Tally] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.requests) + len(self.baselines)
        self.tallies = [Tally(index % self.num_per_prompt == 0) for index in range(count)]

    @property
    def choices(self) -> list[Tally]:
        """Of the choices asked for."""
        return self.tallies[: len(self.requests)]

    @property
    def baseline_choices(self) -> list[Tally]:
        """Of their unsteered counterparts."""
        return self.tallies[len(self.requests) :]

    @property
    def is_finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(tally.finish_reason is not None for tally in self.tallies)

    def usage(self) -> dict[str, Any]:
        """Tokens of the choices asked for, so far."""
        return usage(self.choices)

    def report(self) -> dict[str, Any]:
        """The answer's `steering` object, so far."""
        return steering_report(self.steering, self.choices)

    async def finish(self) -> None:
        """Run to the end."""
        async with aclosing(self.outputs()) as outputs:
            async for _ in outputs:
                pass

    async def outputs(self) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """Each output with the index of its sequence, after it was added to its tally.

        Raises:
            EngineError: As `Engine.generate`.
            SteeringNotAppliedError: Steering was asked for, was due, and acted on no token.
        """
        watch = _Stopwatch(self.metrics, len(self.tallies))
        finish = "abort"  # unless something else happens: closing the generator is a disconnect
        try:
            sequences = [*self.requests, *self.baselines]
            async with aclosing(generate_all(self.engine, sequences)) as outputs:
                async for index, output in outputs:
                    self.tallies[index].add(output)
                    watch.output(index, len(output.token_ids))
                    if output.finish_reason is not None and index < len(self.requests):
                        check_applied(self.requests[index], output, self.metrics)
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
        steered = [tally.steered_tokens for tally in self.choices]
        metrics.applied_tokens.labels(label).inc(sum(s.prompt + s.generated for s in steered))
        metrics.request_latency.observe(watch.seconds)
        _log.info(
            "generation",
            id=self.head.id,
            finish=finish,
            steering=self.steering.header,
            strength=self.steering.strength,
            seconds=round(watch.seconds, 4),
            choices=len(self.requests),
            prompt_tokens=counted["prompt_tokens"],
            completion_tokens=counted["completion_tokens"],
        )


class _Stopwatch:
    """Times of one request, on the monotonic clock."""

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
