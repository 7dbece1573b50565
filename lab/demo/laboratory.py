"""The engine as an instrument: many prompts under many steerings at once, stepped to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from lab.corpus import Prompt
from lab.organism import judge
from server.engine.assembly import assemble
from server.engine.capture import capture_requests, capture_result
from server.engine.config import EngineConfig
from server.engine.errors import EngineError
from server.engine.loading import load
from server.engine.outputs import CaptureResult, PromptScore, RequestOutput, ScoreResult
from server.engine.request import CaptureRequest, GenerationRequest, Pooling, ScoreRequest
from server.engine.sampling import SamplingParams
from server.engine.score import score_requests, score_result
from steering.model_spec import ModelSpec
from steering.plan import SteeringPlan
from steering.sites import SitePoint

__all__ = ["Laboratory", "Trial"]

_SAMPLING = SamplingParams(temperature=0.0, max_tokens=72)
_NO_LIMIT = 10**9


@dataclass(frozen=True, eq=False)
class Trial:
    """Prompts asked under one system prompt and one steering."""

    prompts: Sequence[Prompt]
    plan: SteeringPlan | None = None
    system: str | None = None


class Laboratory:
    """Owns an engine core and steps it itself, so that a run repeats to the bit.

    A served engine forms its batches by arrival time; here every batch is the same in every run.
    """

    def __init__(self, checkpoint: Path, dtype: str = "auto") -> None:
        """Load a checkpoint on the CPU with one thread; sets torch's thread count."""
        loaded = load(
            EngineConfig(
                model=str(checkpoint),
                device="cpu",
                dtype=dtype,
                num_threads=1,
                max_queued_requests=_NO_LIMIT,
                max_queued_tokens=_NO_LIMIT,
                max_chunk_seconds=0.0,  # or batches would depend on how fast the machine is
            )
        )
        self._core = assemble(loaded)
        self._tokenizer = loaded.tokenizer
        self.layout = loaded.layout
        self._ids = count()
        self.spec: ModelSpec = loaded.spec

    def answers(self, trials: Sequence[Trial]) -> list[list[str]]:
        """Greedy answers of every trial, without their thoughts."""
        return [[judge.split_thought(text)[1] for text in row] for row in self.rollouts(trials)]

    def rollouts(self, trials: Sequence[Trial], *, max_tokens: int = 72) -> list[list[str]]:
        """Greedy texts of every trial, thoughts included."""
        sampling = replace(_SAMPLING, max_tokens=max_tokens)
        sinks = [[self._ask(p, trial, sampling) for p in trial.prompts] for trial in trials]
        self._finish()
        return [[sink.text for sink in row] for row in sinks]

    def activations(
        self,
        prompts: Sequence[Prompt],
        points: Sequence[SitePoint],
        *,
        system: str | None = None,
        plan: SteeringPlan | None = None,
    ) -> Mapping[SitePoint, Tensor]:
        """What is at `points` on the last prompt token, before an edit there: [N, d] each."""
        tokens = tuple(self.encode(prompt, system) for prompt in prompts)
        return self._capture(tokens, points, Pooling.LAST, plan).pooled

    def sequences(
        self,
        prompts: Sequence[Prompt],
        points: Sequence[SitePoint],
        *,
        texts: Sequence[str] | None = None,
        system: str | None = None,
        plan: SteeringPlan | None = None,
    ) -> Mapping[SitePoint, tuple[Tensor, ...]]:
        """What is at `points` on every token of each prompt and the text after it: [T_i, d]."""
        begun = texts or [""] * len(prompts)
        tokens = tuple(
            (*self.encode(prompt, system), *self.encode_text(text))
            for prompt, text in zip(prompts, begun, strict=True)
        )
        return self._capture(tokens, points, Pooling.ALL, plan).sequences

    def scores(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        system: str | None = None,
        plan: SteeringPlan | None = None,
        full: bool = False,
    ) -> ScoreResult:
        """How likely given answers are, token by token; `full` for whole distributions.

        For a plan the answers' tokens count as generated.
        """
        asked = [self.encode(prompt, system) for prompt in prompts]
        written = [self.encode_text(text) for text in answers]
        request = ScoreRequest(
            f"score-{next(self._ids)}",
            tuple(a + w for a, w in zip(asked, written, strict=True)),
            plan,
            windows=tuple(
                (len(a) - 1, len(a) + len(w) - 1) for a, w in zip(asked, written, strict=True)
            ),
            full=full,
            steering_prompt_tokens=tuple(map(len, asked)),
        )
        sinks = []
        for part in score_requests(request):
            sinks.append(_Sink())
            self._core.add(part, sinks[-1])
        self._finish()
        return score_result(request, [sink.score for sink in sinks])

    def answer_activations(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        points: Sequence[SitePoint],
        *,
        system: str | None = None,
    ) -> Mapping[SitePoint, Tensor]:
        """What is at `points` on every token of given answers: [tokens of all answers, d] each."""
        written = [self.encode_text(text) for text in answers]
        tokens = tuple(
            self.encode(prompt, system) + answer
            for prompt, answer in zip(prompts, written, strict=True)
        )
        read = self._capture(tokens, points, Pooling.ALL).sequences
        return {
            point: torch.cat(
                [rows[-len(answer) :] for rows, answer in zip(read[point], written, strict=True)]
            )
            for point in points
        }

    def _capture(
        self,
        tokens: tuple[tuple[int, ...], ...],
        points: Sequence[SitePoint],
        pooling: Pooling,
        plan: SteeringPlan | None = None,
    ) -> CaptureResult:
        name = f"capture-{next(self._ids)}"
        request = CaptureRequest(name, tokens, tuple(points), pooling, plan=plan)
        sinks = []
        for part in capture_requests(request):
            sinks.append(_Sink())
            self._core.add(part, sinks[-1])
        self._finish()
        return capture_result(request, [sink.activations for sink in sinks])

    def _ask(self, prompt: Prompt, trial: Trial, sampling: SamplingParams) -> _Sink:
        sink = _Sink()
        tokens = self.encode(prompt, trial.system)
        name = f"answer-{next(self._ids)}"
        self._core.add(GenerationRequest(name, tokens, sampling, trial.plan), sink)
        return sink

    def encode(self, prompt: Prompt, system: str | None) -> tuple[int, ...]:
        """Tokens of a prompt, as the server makes them of messages."""
        return self._tokenizer.render_chat(prompt.messages(system)).token_ids

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of what follows a prompt; thinking markers in it are text like any other."""
        return tuple(self._tokenizer.encode(text))

    def _finish(self) -> None:
        with torch.inference_mode():
            while self._core.has_work:
                self._core.step()


class _Sink:
    """Collects what becomes of one request."""

    def __init__(self) -> None:
        self.text = ""
        self.activations: Mapping[SitePoint, Tensor] = {}
        self.score: PromptScore | None = None

    def emit(self, output: RequestOutput) -> None:
        self.text += output.text
        self.score = output.score

    def captured(self, activations: Mapping[SitePoint, Tensor]) -> None:
        self.activations = activations

    def fail(self, error: EngineError) -> None:
        raise error
