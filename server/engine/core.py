"""The engine's loop: schedule, run, sample, record, emit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice, zip_longest
from typing import TYPE_CHECKING, Protocol

import structlog

from .errors import (
    EngineDeadError,
    EngineError,
    GenerationError,
    NonFiniteOutputError,
    RequestAbortedError,
)
from .gate_latch import GateLatch
from .outputs import EngineStats, RequestOutput, StepMode
from .progress import RequestProgress
from .reading import score_rows
from .request import Request, RequestStatus
from .sampler import SampledRow, prompt_logprobs
from .scheduler import check_request
from .step_log import StepLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from steering.runtime import Readouts, SteeringRuntime, StepOutcome
    from steering.sites import SitePoint

    from .model_runner import ModelRunner, PromptLogits, RunResult
    from .outputs import TokenLogprobs
    from .request import GenerationRequest
    from .sampler import PositionLogprobs, SampledToken, Sampler
    from .scheduler import ScheduledRequest, Scheduler, SchedulerOutput, SpeedMeter
    from .text import Tokenizer

_log = structlog.get_logger(__name__)


class RequestSink(Protocol):
    """Receives one request's outputs; its methods never raise and never wait."""

    def emit(self, output: RequestOutput) -> None:
        """Take an output; the last one has a finish reason."""
        ...

    def captured(self, activations: Mapping[SitePoint, Tensor]) -> None:
        """Take the captured activations, before the last output."""
        ...

    def fail(self, error: EngineError) -> None:
        """Take the error that ended the request."""
        ...


class EngineCore:
    """Owns every request from admission to its last output; used from one thread.

    A request ends in exactly one way: a last output with a finish reason, or one error. What goes
    wrong for one request ends that request alone; what goes wrong for a whole step ends the
    requests of that step, and the others compute their keys and values again.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: ModelRunner,
        sampler: Sampler,
        tokenizer: Tokenizer,
        runtime: SteeringRuntime,
        *,
        vocab_size: int,
        draw_seed: Iterator[int],
        steps: StepLog,
        meter: SpeedMeter,
    ) -> None:
        """Take the parts.

        Args:
            scheduler: Chooses the tokens of each step.
            runner: Runs the model over these tokens.
            sampler: Chooses the next tokens.
            tokenizer: Turns tokens into text.
            runtime: The steering runtime behind the model's hooks.
            vocab_size: Number of token ids that the model has.
            draw_seed: Seeds for requests that give none.
            steps: Record of progress; the other parts write to it too.
            meter: Learns how long steps take, and so bounds their size.
        """
        self._vocab_size = vocab_size
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._runtime = runtime
        self._draw_seed = draw_seed
        self._arrivals = count()
        self._live: dict[str, tuple[RequestProgress, RequestSink]] = {}
        self._steps = steps
        self._meter = meter

    @property
    def has_work(self) -> bool:
        """Whether any request has not ended."""
        return self._scheduler.has_work

    @property
    def seconds_since_progress(self) -> float:
        """Since the engine last got anywhere while there was work, else 0; from any thread.

        Progress is a piece of a step, however long the step: see `StepLog.beat`.
        """
        return self._steps.seconds_silent if self._scheduler.has_work else 0.0

    @property
    def keeps_failing(self) -> bool:
        """Whether steps fail so often that only a fresh process can help."""
        return self._steps.keeps_failing

    def add(self, spec: GenerationRequest, sink: RequestSink) -> None:
        """Queue a request; a rejected one fails at once."""
        self._steps.beat()  # each admission is progress; the first one of idle time begins to count
        try:
            progress = self._admit(spec)
        except EngineError as error:
            sink.fail(error)
            return
        except Exception:
            _log.exception("request_not_admitted", request=spec.request_id)
            sink.fail(GenerationError("this request failed before it ran"))
            return
        self._live[spec.request_id] = (progress, sink)

    def abort(self, request_id: str) -> None:
        """End a request now; unknown ids are ignored."""
        if request_id in self._live:
            message = f"request {request_id} was cancelled"
            self._fail(self._live[request_id][0].request, RequestAbortedError(message))

    def fail_all(self, error: EngineError) -> None:
        """End every request with an error."""
        for request in self._scheduler.requests():
            self._fail(request, error)

    def step(self) -> None:
        """Run one step for the requests that the scheduler chooses."""
        begun_at = time.monotonic()
        output = self._scheduler.schedule(self._meter.pace)
        work = output.work
        try:
            self._steps.beat()
            result = self._runner.run(output)
            self._steps.beat()
            rows = [SampledRow(p.request, i) for p in result.sampled for i in range(p.num_sampled)]
            sampled = self._sampler.sample(result.logits, rows)
        except Exception:
            _log.exception("step_failed")
            self._fail_step(output)
            return
        self._record(output, result, sampled)
        self._emit(output)
        seconds = time.monotonic() - begun_at
        if result.mode is not StepMode.CAPTURED:  # which says nothing about the steps to come
            self._meter.observe(work, seconds)
        self._steps.completed(seconds, result.mode)

    def stats(self, *, is_healthy: bool, is_draining: bool) -> EngineStats:
        """A snapshot; may be taken from another thread."""
        scheduler, cache = self._scheduler, self._scheduler.kv_cache
        return EngineStats(
            num_requests_running=scheduler.num_running,
            num_requests_waiting=scheduler.num_waiting,
            kv_cache_usage_ratio=cache.usage_ratio,
            num_preemptions=scheduler.num_preemptions,
            prefix_cache_queries=cache.num_queries,
            prefix_cache_hits=cache.num_hits,
            num_drafted_tokens=scheduler.num_drafted_tokens,
            num_accepted_tokens=scheduler.num_accepted_tokens,
            num_live_edits=self._runtime.num_live_edits,
            step_seconds=self._steps.step_seconds,
            steps_by_mode=self._steps.by_mode,
            seconds_since_progress=self.seconds_since_progress,
            is_healthy=is_healthy,
            is_draining=is_draining,
        )

    def _admit(self, spec: GenerationRequest) -> RequestProgress:
        limits, sampling = self._scheduler.limits, spec.sampling
        room = limits.max_model_len - len(spec.prompt_token_ids)
        request = Request(
            spec=spec,
            arrival=next(self._arrivals),
            seed=next(self._draw_seed) if sampling.seed is None else sampling.seed,
            max_tokens=max(room, 0) if sampling.max_tokens is None else sampling.max_tokens,
        )
        check_request(request, self._vocab_size)
        regions = None
        if spec.plan is not None and spec.plan.uses_regions and spec.prompt_regions is not None:
            request.regions = bytearray(spec.prompt_regions)
            regions = self._tokenizer.region_tracker(spec.prompt_token_ids, spec.prompt_regions)
        if spec.plan is not None and spec.plan.latches:
            request.latch = GateLatch(spec.plan.latches, request.boundary)
        self._scheduler.add(request, reads_cache=not request.needs_whole_prompt)
        detokenizer = self._tokenizer.detokenizer(
            spec.prompt_token_ids, sampling.stop, min_tokens=sampling.min_tokens
        )
        splitter = None
        if spec.is_thinking is not None:
            splitter = self._tokenizer.thought_splitter(is_thinking=spec.is_thinking)
        return RequestProgress(
            request, detokenizer, self._tokenizer.end_token_ids, regions, splitter
        )

    def _record(
        self, output: SchedulerOutput, result: RunResult, sampled: Sequence[SampledToken]
    ) -> None:
        for found in result.prompt_logits:
            self._bounded(found.part.request, partial(self._note_prompt_logits, found))
        self._note_gates(result.readouts)
        tokens = iter(sampled)
        offset = 0
        for part in output.scheduled:
            own = list(islice(tokens, part.num_sampled))
            self._bounded(part.request, partial(self._record_part, part, own))
            # How many of its tokens count is known now: drafts may have been refused.
            self._bounded(part.request, partial(self._note_steered, part, result.outcome, offset))
            offset += part.num_tokens
        self._note_readouts(result.readouts)

    def _note_readouts(self, readouts: Readouts) -> None:
        """Record what was read, but for requests that failed earlier in this step."""
        for read, scores in readouts.scores():
            if read.request_id in self._live:
                progress, _ = self._live[read.request_id]
                known = progress.request.num_computed_tokens - read.position
                progress.note_monitor(read.monitor, read.position, scores[:known])
        for capture, rows in readouts.rows():
            if capture.request_id in self._live:
                progress, _ = self._live[capture.request_id]
                progress.note_captured(capture.point, capture.position, rows)

    def _note_gates(self, readouts: Readouts) -> None:
        for gate, total in readouts.sums():
            if gate.request_id in self._live:
                latch = self._live[gate.request_id][0].request.latch
                assert latch is not None, "a gate that nobody waits for was read"
                latch.note(gate.gate, gate.position, gate.rows[1] - gate.rows[0], total.numpy())

    def _note_steered(self, part: ScheduledRequest, outcome: StepOutcome, offset: int) -> None:
        progress, _ = self._live[part.request.request_id]
        if part.start == part.request.num_cached_tokens:
            progress.note_cached_prefix()
        stop = offset + part.request.num_computed_tokens - part.start
        plan = part.request.spec.plan
        progress.note_steered(part.start, outcome.steered[offset:stop])
        if plan is not None and plan.has_token_gates:
            progress.note_opened(part.start, outcome.opened(plan, offset, stop))

    def _note_prompt_logits(self, found: PromptLogits) -> None:
        request, first = found.part.request, found.first
        progress, _ = self._live[request.request_id]
        next_ids = request.token_ids(first + 1, first + 1 + len(found.logits))
        if request.spec.score_positions is not None:
            score = score_rows(found.logits, next_ids, full=request.spec.score_full)
            if score is not None:
                progress.note_score(first, score)
                return
        else:
            num_top = request.spec.sampling.prompt_logprobs
            assert num_top is not None, "logits of a prompt nobody asked for"
            entries = prompt_logprobs(found.logits, next_ids, num_top)
            if all(entry.is_finite for entry in entries):
                progress.note_prompt_logprobs(first, map(self._with_text, entries))
                return
        self._fail(request, _non_finite(request), discard=True)

    def _record_part(self, part: ScheduledRequest, tokens: Sequence[SampledToken]) -> None:
        """Take over sampled tokens up to the first that is not what was drafted in its place."""
        request = part.request
        progress, _ = self._live[request.request_id]
        is_finite, num_kept = True, 0
        if part.latches:
            assert request.latch is not None, "a part decides gates there are none of"
            is_finite = request.latch.decide()
        for token, drafted in zip_longest(tokens, part.drafts):
            is_finite = token.is_finite
            if not is_finite:
                break
            logprobs = None if token.logprobs is None else self._with_text(token.logprobs)
            progress.note_token(token.token_id, logprobs)
            num_kept += 1
            if token.token_id != drafted or progress.finish_reason is not None:
                break
        if not is_finite:
            self._fail(request, _non_finite(request), discard=True)
            return
        self._scheduler.update(part, num_kept)
        if part.is_last_chunk and not tokens:
            progress.note_scored()

    def _with_text(self, entry: PositionLogprobs) -> TokenLogprobs:
        return entry.with_text(self._tokenizer.token_text)

    def _emit(self, output: SchedulerOutput) -> None:
        for part in output.scheduled:
            if part.request.request_id in self._live:
                self._bounded(part.request, partial(self._emit_part, part.request))

    def _emit_part(self, request: Request) -> None:
        progress, sink = self._live[request.request_id]
        if not progress.has_news:
            return
        output = progress.output()
        if output.finish_reason is not None:
            self._end(request)
            if request.spec.capture_points:
                sink.captured(progress.captured())
        sink.emit(output)

    def _bounded(self, request: Request, work: Callable[[], None]) -> None:
        """Do a request's own work; what goes wrong there ends that request alone."""
        if request.request_id not in self._live:
            return  # it failed earlier in this step
        self._steps.beat()
        try:
            work()
        except Exception:
            _log.exception("request_failed", request=request.request_id)
            message = "this request failed while it ran; others are not affected"
            self._fail(request, GenerationError(message))

    def _fail(self, request: Request, error: EngineError, *, discard: bool = False) -> None:
        _, sink = self._live[request.request_id]
        self._end(request, discard=discard)
        sink.fail(error)

    def _end(self, request: Request, *, discard: bool = False) -> None:
        self._scheduler.finish(request, discard=discard)
        del self._live[request.request_id]

    def _fail_step(self, output: SchedulerOutput) -> None:
        """End the step's requests; the keys and values of all others are computed again."""
        message = "a step of the engine failed; the request may be sent again"
        for part in output.scheduled:
            self._fail(part.request, EngineDeadError(message), discard=True)
        for request in self._scheduler.requests():
            if request.status is RequestStatus.RUNNING:
                self._scheduler.preempt(request)
        self._scheduler.kv_cache.clear()
        self._runner.clear()
        self._steps.failed()


def _non_finite(request: Request) -> NonFiniteOutputError:
    plan = request.spec.plan
    is_steered = plan is not None and bool(plan.interventions)
    cause = "under this steering; use a smaller strength" if is_steered else "for this prompt"
    message = f"the model's numbers became NaN or infinite {cause}"
    return NonFiniteOutputError(message, is_steered=is_steered)
