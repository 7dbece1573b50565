"""Captures as ordinary requests: one per prompt, at job priority, generating nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steering.sites import SitePoint

from .errors import RequestRejectedError
from .outputs import CaptureResult
from .request import CaptureRequest, GenerationRequest, Pooling, Priority
from .sampling import SamplingParams

__all__ = ["capture_requests", "capture_result"]


def capture_requests(request: CaptureRequest) -> list[GenerationRequest]:
    """The requests whose activations make up a capture, one per prompt.

    Raises:
        RequestRejectedError: Not one index per prompt, or an index outside its prompt.
    """
    indices = request.indices or (-1,) * len(request.prompts)
    if len(indices) != len(request.prompts):
        raise RequestRejectedError(
            f"indices has {len(indices)} entries for {len(request.prompts)} prompts; expected one "
            "for each",
            param="indices",
        )
    return [
        GenerationRequest(
            request_id=f"{request.request_id}-{number}",
            prompt_token_ids=prompt,
            sampling=SamplingParams(max_tokens=0),
            plan=request.plan,
            priority=Priority.JOB,
            capture_points=request.points,
            capture_positions=_window(request.pooling, len(prompt), index),
        )
        for number, (prompt, index) in enumerate(zip(request.prompts, indices, strict=True))
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


def _window(pooling: Pooling, num_tokens: int, index: int) -> tuple[int, int]:
    if pooling is not Pooling.LAST:
        return (0, num_tokens)
    position = index if index >= 0 else num_tokens + index
    if not 0 <= position < num_tokens:
        raise RequestRejectedError(
            f"indices contains {index} for a prompt of {num_tokens} tokens; expected "
            f"{-num_tokens} to {num_tokens - 1}",
            param="indices",
        )
    return (position, position + 1)
