"""Captures and scores as ordinary requests: one per prompt, at job priority, generating nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import torch
from torch import Tensor

from steering.sites import SitePoint

from .errors import RequestRejectedError
from .outputs import CaptureResult, PromptScore, ScoreResult
from .request import CaptureRequest, GenerationRequest, Pooling, Priority, ScoreRequest
from .sampling import SamplingParams

_T = TypeVar("_T")
_SLICE_ROWS: Final = 256  # bounds the float32 copies of logits


def capture_requests(request: CaptureRequest) -> list[GenerationRequest]:
    """The requests whose activations make up a capture, one per prompt.

    Raises:
        RequestRejectedError: Not one index, window or boundary per prompt, one outside its prompt,
            or windows with pooling `last`.
    """
    windows = _capture_windows(request)
    boundaries = _per_prompt(
        request.prompts, request.steering_prompt_tokens, "steering_prompt_tokens"
    )
    return [
        GenerationRequest(
            request_id=f"{request.request_id}-{number}",
            prompt_token_ids=prompt,
            sampling=SamplingParams(max_tokens=0),
            plan=request.plan,
            priority=Priority.JOB,
            capture_points=request.points,
            steering_prompt_tokens=boundary,
            capture_positions=window,
        )
        for number, (prompt, window, boundary) in enumerate(
            zip(request.prompts, windows, boundaries, strict=True)
        )
    ]


def capture_result(
    request: CaptureRequest, activations: Sequence[Mapping[SitePoint, Tensor]]
) -> CaptureResult:
    """Put the prompts' activations together, pooled as asked."""
    if request.pooling is Pooling.ALL:
        return CaptureResult(
            sequences={
                point: tuple(found[point] for found in activations) for point in request.points
            }
        )
    return CaptureResult(
        pooled={
            point: torch.stack([found[point].mean(dim=0) for found in activations])
            for point in request.points
        }
    )


def score_requests(request: ScoreRequest) -> list[GenerationRequest]:
    """The requests that make up a score, one per text.

    Raises:
        RequestRejectedError: Not one window or boundary per text, or a window outside its text.
    """
    windows = _prompt_windows(request.prompts, request.windows)
    boundaries = _per_prompt(
        request.prompts, request.steering_prompt_tokens, "steering_prompt_tokens"
    )
    labels = _per_prompt(request.prompts, request.prompt_regions, "prompt_regions")
    return [
        GenerationRequest(
            request_id=f"{request.request_id}-{number}",
            prompt_token_ids=prompt,
            sampling=SamplingParams(max_tokens=0),
            plan=request.plan,
            priority=Priority.JOB,
            prompt_regions=regions,
            steering_prompt_tokens=boundary,
            score_positions=window,
            score_full=request.full,
        )
        for number, (prompt, window, boundary, regions) in enumerate(
            zip(request.prompts, windows, boundaries, labels, strict=True)
        )
    ]


def score_result(request: ScoreRequest, scores: Sequence[PromptScore | None]) -> ScoreResult:
    """Put the texts' scores together."""
    found = [score for score in scores if score is not None]
    assert len(found) == len(request.prompts), "a text was not scored"
    return ScoreResult(
        token_logprobs=tuple(score.token_logprobs for score in found),
        distributions=tuple(s.distributions for s in found if s.distributions is not None),
    )


def score_rows(logits: Tensor, next_ids: Sequence[int], *, full: bool) -> PromptScore | None:
    """Natural-log probabilities under softmax(logits), computed in float32 slice by slice.

    Args:
        logits: [n, V] raw, of any float dtype.
        next_ids: The known tokens after the first len(next_ids) rows; n of them, or n - 1.
        full: Whether to return all of [n, V].

    Returns:
        None where a row holds NaN or infinity, or a known token has probability 0. One host
        synchronisation a slice.
    """
    values: list[Tensor] = []
    rows: list[Tensor] = []
    for start in range(0, len(logits), _SLICE_ROWS):
        logprobs = logits[start : start + _SLICE_ROWS].float().log_softmax(dim=-1)  # [s, V]
        # A finite log-softmax has a finite maximum; NaN and plus infinity leave none.
        if not bool(logprobs.amax(dim=-1).isfinite().all()):
            return None
        known = torch.tensor(next_ids[start : start + len(logprobs)], dtype=torch.int64)
        chosen = logprobs[: len(known)].gather(1, known.to(logprobs.device)[:, None])
        values.append(chosen[:, 0].double().cpu())
        if full:
            rows.append(logprobs.cpu())
    found = torch.cat(values)
    if not bool(found.isfinite().all()):
        return None
    return PromptScore(tuple(found.tolist()), torch.cat(rows) if full else None)


def _capture_windows(request: CaptureRequest) -> list[tuple[int, int]]:
    if request.pooling is not Pooling.LAST:
        return _prompt_windows(request.prompts, request.windows)
    if request.windows is not None:
        raise RequestRejectedError(
            "windows is given with pooling 'last', which reads one token; use pooling 'mean' or "
            "'all', or indices",
            param="windows",
        )
    indices = _per_prompt(request.prompts, request.indices, "indices")
    pairs = zip(request.prompts, indices, strict=True)
    return [_window_at(len(prompt), -1 if index is None else index) for prompt, index in pairs]


def _window_at(num_tokens: int, index: int) -> tuple[int, int]:
    position = index if index >= 0 else num_tokens + index
    if not 0 <= position < num_tokens:
        raise RequestRejectedError(
            f"indices contains {index} for a prompt of {num_tokens} tokens; expected "
            f"{-num_tokens} to {num_tokens - 1}",
            param="indices",
        )
    return (position, position + 1)


def _prompt_windows(
    prompts: Sequence[Sequence[int]], windows: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Half-open positions of each prompt: its window, or all of it where there are none.

    Raises:
        RequestRejectedError: Another number of windows than of prompts, or a window that is empty
            or goes beyond its prompt.
    """
    found = []
    for prompt, window in zip(prompts, _per_prompt(prompts, windows, "windows"), strict=True):
        start, stop = (0, len(prompt)) if window is None else window
        if window is not None and not 0 <= start < stop <= len(prompt):
            raise RequestRejectedError(
                f"windows contains [{start}, {stop}) for a prompt of {len(prompt)} tokens; "
                f"expected 0 <= start < stop <= {len(prompt)}",
                param="windows",
            )
        found.append((start, stop))
    return found


def _per_prompt(
    prompts: Sequence[Sequence[int]], values: Sequence[_T] | None, param: str
) -> Sequence[_T | None]:
    """`values`, one for each prompt, or None for each where there are none.

    Raises:
        RequestRejectedError: Another number of values than of prompts.
    """
    if values is None:
        return [None] * len(prompts)
    if len(values) != len(prompts):
        raise RequestRejectedError(
            f"{param} has {len(values)} entries for {len(prompts)} prompts; expected one for each",
            param=param,
        )
    return values
