"""Prompts of the corpus under many steerings at once, asked of an engine that nobody else uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from lab.corpus import Prompt
from lab.organism import judge
from server.engine.engine import EngineConfig
from server.engine.loading import load
from server.engine.outputs import CaptureResult, ScoreResult
from server.engine.request import CaptureRequest, GenerationRequest, Pooling, ScoreRequest
from server.engine.sampling import SamplingParams
from server.engine.sync_engine import SyncEngine
from steering.model_spec import ModelSpec
from steering.plan import SteeringPlan
from steering.sites import SitePoint

_SAMPLING = SamplingParams(temperature=0.0, max_tokens=72)
_NO_LIMIT = 10**9


@dataclass(frozen=True, eq=False)
class Trial:
    """Prompts asked under one system prompt and one steering."""

    prompts: Sequence[Prompt]
    plan: SteeringPlan | None = None
    system: str | None = None


class Laboratory:
    """Asks an engine of its own the corpus's prompts; a run repeats to the bit (`SyncEngine`)."""

    def __init__(self, checkpoint: Path, dtype: str = "auto") -> None:
        """Load a checkpoint on the CPU with one thread; sets torch's thread count."""
        loaded = load(
            EngineConfig(
                model=str(checkpoint),
                device="cpu",
                dtype=dtype,
                decode_weights="off",  # or rounding would depend on what was measured at load
                num_threads=1,
                max_queued_requests=_NO_LIMIT,
                max_queued_tokens=_NO_LIMIT,
                max_chunk_seconds=0.0,  # or batches would depend on how fast the machine is
            )
        )
        self._engine = SyncEngine(loaded)
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
        asked = [[self._request(p, trial, sampling) for p in trial.prompts] for trial in trials]
        found = self._engine.generate([request for row in asked for request in row])
        texts = ("".join(output.text for output in outputs) for outputs in found)
        return [[next(texts) for _ in row] for row in asked]

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
        return self._engine.score(request)

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
        return self._engine.capture(CaptureRequest(name, tokens, tuple(points), pooling, plan=plan))

    def _request(self, prompt: Prompt, trial: Trial, sampling: SamplingParams) -> GenerationRequest:
        tokens = self.encode(prompt, trial.system)
        return GenerationRequest(f"answer-{next(self._ids)}", tokens, sampling, trial.plan)

    def encode(self, prompt: Prompt, system: str | None) -> tuple[int, ...]:
        """Tokens of a prompt, as the server makes them of messages."""
        return self._tokenizer.render_chat(prompt.messages(system)).token_ids

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of what follows a prompt; thinking markers in it are text like any other."""
        return tuple(self._tokenizer.encode(text))
