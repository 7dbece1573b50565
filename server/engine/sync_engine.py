"""An engine stepped by its only caller until everything asked has ended: no thread, no waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .assembly import assemble
from .reading import capture_requests, capture_result, score_requests, score_result

if TYPE_CHECKING:
    from torch import Tensor

    from steering.sites import SitePoint

    from .errors import EngineError
    from .loading import LoadedModel
    from .outputs import CaptureResult, RequestOutput, ScoreResult
    from .request import CaptureRequest, GenerationRequest, ScoreRequest


class SyncEngine:
    """Generates, captures and scores in the caller's thread; for programs that serve nobody.

    The requests of one call are all queued before the first step, so the same calls make the same
    batches in every run. `AsyncEngine` forms its batches by arrival time instead. Where the model
    was loaded with `max_chunk_seconds` 0 and `decode_weights` not auto, no clock sizes the steps or
    chooses the weights either, and a run repeats to the bit on one machine.

    Every method raises the `EngineError` of the first request that fails; the other requests of
    that call are given up, and the engine can be used again.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        """Assemble an engine over a model, whose hooks it installs: one engine per loaded model."""
        self._core = assemble(loaded)

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[RequestOutput]]:
        """All outputs of each request, in order; the last output has its finish reason."""
        return [sink.outputs for sink in self._run(requests)]

    def capture(self, request: CaptureRequest) -> CaptureResult:
        """Read activations at sites for prompts; see `Engine.capture`."""
        sinks = self._run(capture_requests(request))
        return capture_result(request, [sink.activations for sink in sinks])

    def score(self, request: ScoreRequest) -> ScoreResult:
        """Log-probabilities of known text; see `Engine.score`."""
        sinks = self._run(score_requests(request))
        return score_result(request, [sink.outputs[-1].score for sink in sinks])

    def _run(self, requests: Sequence[GenerationRequest]) -> list[_Sink]:
        errors: list[EngineError] = []
        sinks = [_Sink(errors) for _ in requests]
        for request, sink in zip(requests, sinks, strict=True):
            self._core.add(request, sink)
        while self._core.has_work and not errors:
            self._core.step()
        if errors:
            self._core.fail_all(errors[0])
            raise errors[0]
        return sinks


class _Sink:
    """Keeps what becomes of one request; an error goes to the list that the run's sinks share."""

    def __init__(self, errors: list[EngineError]) -> None:
        self.outputs: list[RequestOutput] = []
        self.activations: Mapping[SitePoint, Tensor] = {}
        self._errors = errors

    def emit(self, output: RequestOutput) -> None:
        self.outputs.append(output)

    def captured(self, activations: Mapping[SitePoint, Tensor]) -> None:
        self.activations = activations

    def fail(self, error: EngineError) -> None:
        self._errors.append(error)
