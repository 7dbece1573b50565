"""The reference for a whole model: plain Hugging Face, steered by the float64 oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steering.documents import Per, PositionContext
from steering.hooks import install_hooks
from steering.layout import detect_layout
from steering.model_spec import ModelSpec
from steering.plan import Steer
from tests.steering.gate_oracle import GateOracle
from tests.steering.oracle_runtime import OracleRuntime

__all__ = ["Reference", "reference", "reference_logits"]


@dataclass(frozen=True)
class Reference:
    """Logits [T, V] of one sequence, and what its gates decided."""

    logits: Tensor
    gates: GateOracle


def reference_logits(
    model: nn.Module,
    spec: ModelSpec,
    token_ids: Sequence[int],
    num_prompt_tokens: int,
    steers: Sequence[Steer],
) -> Tensor:
    """Logits [T, V] of one sequence on its own, in one forward, every edit in float64."""
    return reference(model, spec, token_ids, num_prompt_tokens, steers).logits


def reference(
    model: nn.Module,
    spec: ModelSpec,
    token_ids: Sequence[int],
    num_prompt_tokens: int,
    steers: Sequence[Steer],
) -> Reference:
    """The same with its gates: those of the request read a forward of the prompt without them."""
    gates = GateOracle()
    if any(s.intervention.gate and s.intervention.gate.per is Per.REQUEST for s in steers):
        before = GateOracle()
        prompt = token_ids[:num_prompt_tokens]
        _forward(model, spec, prompt, num_prompt_tokens, steers, before)
        before.latch(steers, num_prompt_tokens)
        gates.is_open, gates.margin = before.is_open, before.margin
    logits = _forward(model, spec, token_ids, num_prompt_tokens, steers, gates)
    return Reference(logits, gates)


def _forward(
    model: nn.Module,
    spec: ModelSpec,
    token_ids: Sequence[int],
    num_prompt_tokens: int,
    steers: Sequence[Steer],
    gates: GateOracle,
) -> Tensor:
    runtime = OracleRuntime(spec, PositionContext(num_prompt_tokens), steers, gates)
    handles = install_hooks(detect_layout(model), runtime)
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=torch.tensor([list(token_ids)])).logits
        return logits[0]
    finally:
        handles.remove()
