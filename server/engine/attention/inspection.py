"""Read off a model, in one forward pass of two tokens, what attention each layer asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from steering.errors import UnsupportedArchitectureError

from .spec import AttentionSpec

PAGED: Final = "coxswain_paged"
"""Name under which `paged_attention` is registered; no mask function, so no mask is ever made."""

INSPECTED: Final = "coxswain_inspected"
"""Name under which `inspected_attention` and, as mask function, `MaskRule` are registered."""

_FARTHEST: Final = 1 << 20
_NEAR: Final = 24
# Say where tokens are or what to return; attention does not depend on them.
_HARMLESS: Final = frozenset({"position_ids", "cache_position", "position_embeddings"})

_VisibilityFunction = Callable[[Any, Any, torch.Tensor, torch.Tensor], torch.Tensor]


class MaskRule:
    """A mask function's rule, handed to the attention function in place of a mask."""

    def __init__(self, *, mask_function: _VisibilityFunction, **_: object) -> None:
        self._mask_function = mask_function

    def window(self) -> int | None:
        """The sliding window of a causal rule, or None where all keys up to the query are seen.

        Raises:
            UnsupportedArchitectureError: The rule is not causal with at most a sliding window.
        """
        keys = torch.arange(_FARTHEST + 1)
        seen = int(self._visible(torch.tensor(_FARTHEST), keys).sum())
        window = None if seen > _FARTHEST else seen
        edges = torch.cat([torch.arange(_NEAR), torch.arange(-2, 3) + seen, keys[-_NEAR:]])
        edges = edges[(edges >= 0) & (edges <= _FARTHEST)]
        queries, keys = edges[:, None], edges[None, :]
        expected = keys <= queries
        if window is not None:
            expected &= keys > queries - window
        if not torch.equal(self._visible(queries, keys), expected):
            raise UnsupportedArchitectureError(
                "attention is not causal with at most a sliding window, the only kind supported "
                "(bidirectional, chunked and prefix masks are not)",
                param="model",
            )
        return window

    def _visible(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        zero = torch.tensor(0)
        return self._mask_function(zero, zero, queries, keys).expand_as(queries + keys)


@dataclass(frozen=True)
class _Recorder:
    """Stands in for attention while a model is inspected."""

    calls: list[tuple[nn.Module, AttentionSpec]]


def inspected_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Record what is asked for; returns zeros of the right shape."""
    where = f"{type(module).__name__}, attention layer {getattr(module, 'layer_idx', '?')}"
    _refuse_unknown(kwargs, where)
    window = _window(module, attention_mask, where)
    if sliding_window not in (None, window):
        raise UnsupportedArchitectureError(
            f"{where} asks for a sliding window of {sliding_window}, its mask for {window}",
            param="model",
        )
    recorder = module.coxswain
    assert isinstance(recorder, _Recorder)
    spec = AttentionSpec(
        layer=len(recorder.calls),
        num_heads=query.shape[1],
        num_kv_heads=key.shape[1],
        key_dim=key.shape[3],
        value_dim=value.shape[3],
        scaling=float(query.shape[3] ** -0.5 if scaling is None else scaling),
        window=window,
        softcap=softcap,
        dtype=query.dtype,
        device=query.device,
    )
    recorder.calls.append((module, spec))
    return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None


def inspect_attention(model: Any) -> tuple[tuple[nn.Module, AttentionSpec], ...]:
    """Every attention module in the order of the forward pass, and what it asks for.

    Runs the model once on two tokens, without attention, and leaves it as it was.

    Args:
        model: A transformers causal language model, loaded with `PAGED` attention.

    Raises:
        UnsupportedArchitectureError: The model does not call attention through transformers'
            interface once per layer, or asks for something that is not implemented: attention
            sinks, position bias, head masks, dropout, another mask than causal with at most a
            sliding window.
    """
    recorder = _Recorder([])
    modules = list(model.modules())
    for module in modules:
        module.coxswain = recorder
    model.set_attn_implementation(INSPECTED)
    try:
        device = model.get_input_embeddings().weight.device
        with torch.inference_mode():
            model(
                input_ids=torch.zeros(1, 2, dtype=torch.int64, device=device),
                position_ids=torch.arange(2, device=device)[None],
                use_cache=False,
                logits_to_keep=torch.tensor([1], device=device),
            )
    finally:
        model.set_attn_implementation(PAGED)
        for module in modules:
            del module.coxswain
    _check_coverage(model, recorder)
    return tuple(recorder.calls)


def _check_coverage(model: Any, recorder: _Recorder) -> None:
    num_layers = model.config.get_text_config().num_hidden_layers
    if len(recorder.calls) != num_layers or len({id(m) for m, _ in recorder.calls}) != num_layers:
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} calls transformers' attention interface "
            f"{len(recorder.calls)} times for its {num_layers} layers; expected one call a layer. "
            "Models with their own attention code, other token mixers or shared attention modules "
            "are not supported",
            param="model",
        )


def _refuse_unknown(kwargs: Mapping[str, object], where: str) -> None:
    for name, given in kwargs.items():
        if given is None or given is False or name in _HARMLESS:
            continue
        if name == "dropout" and given == 0.0:
            continue
        if name == "is_causal" and given is True:
            continue
        raise UnsupportedArchitectureError(
            f"{where} needs the attention argument {name!r}, which is not implemented",
            param="model",
        )


def _window(module: nn.Module, attention_mask: object, where: str) -> int | None:
    if isinstance(attention_mask, MaskRule):
        try:
            return attention_mask.window()
        except UnsupportedArchitectureError as error:
            raise UnsupportedArchitectureError(f"{where}: {error}", param="model") from None
    if attention_mask is None and getattr(module, "is_causal", False):
        return None
    raise UnsupportedArchitectureError(
        f"{where} builds its mask outside transformers' mask interface, or is not causal",
        param="model",
    )
