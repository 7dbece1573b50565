"""Read off a model, in one forward pass of two tokens, what attention each layer asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from steering.errors import UnsupportedArchitectureError

from .spec import AttentionSpec, Reach

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

    def reach(self) -> Reach:
        """Which keys a query of this rule sees.

        Raises:
            UnsupportedArchitectureError: The rule is not causal with at most a sliding window or
                chunks.
        """
        queries = torch.arange(_FARTHEST + 1)
        # How many queries see the very first key: of a window or of chunks, its size.
        seen = int(self._visible(queries, torch.tensor(0)).sum())
        edges = torch.cat([queries[:_NEAR], *_around(seen), queries[-_NEAR:]])
        edges = edges[(edges >= 0) & (edges <= _FARTHEST)]
        visible = self._visible(edges[:, None], edges[None, :])
        for reach in (Reach(),) if seen > _FARTHEST else (Reach(window=seen), Reach(chunk=seen)):
            first = torch.from_numpy(reach.first(edges.numpy()))[:, None]
            if torch.equal(visible, (edges <= edges[:, None]) & (edges >= first)):
                return reach
        raise UnsupportedArchitectureError(
            "attention is not causal with at most a sliding window or chunks, the only kinds "
            "supported (bidirectional and prefix masks are not)",
            param="model",
        )

    def _visible(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        zero = torch.tensor(0)
        return self._mask_function(zero, zero, queries, keys).expand_as(queries + keys)


def _around(size: int) -> list[torch.Tensor]:
    """Positions near the first two multiples of `size`, and near the last two below the end."""
    last = _FARTHEST // max(size, 1)
    return [times * size + torch.arange(-2, 3) for times in (1, 2, last - 1, last)]


@dataclass(frozen=True)
class _Recorder:
    """Stands in for attention while a model is inspected."""

    calls: list[tuple[nn.Module, AttentionSpec]]


def inspected_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Record what is asked for; returns zeros of the right shape."""
    where = f"{type(module).__name__}, attention layer {getattr(module, 'layer_idx', '?')}"
    _refuse_unknown(kwargs, where)
    reach = _reach(module, attention_mask, where)
    if sliding_window not in (None, reach.window):
        raise UnsupportedArchitectureError(
            f"{where} asks for a sliding window of {sliding_window}, its mask for {reach.window}",
            param="model",
        )
    if s_aux is not None and s_aux.shape != (query.shape[1],):
        raise UnsupportedArchitectureError(
            f"{where} has sinks of shape {list(s_aux.shape)}; expected one for each of its "
            f"{query.shape[1]} heads",
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
        window=reach.window,
        softcap=softcap,
        dtype=query.dtype,
        device=query.device,
        chunk=reach.chunk,
        has_sinks=s_aux is not None,
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
            interface once per layer, or asks for something that is not implemented: position
            bias, head masks, dropout, another mask than causal with at most a sliding window or
            chunks.
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
    except (AttributeError, TypeError) as error:
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} works on its attention mask in code of its own, which cannot "
            f"be batched or cached here: {error}",
            param="model",
        ) from error
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


def _reach(module: nn.Module, attention_mask: object, where: str) -> Reach:
    if isinstance(attention_mask, MaskRule):
        try:
            return attention_mask.reach()
        except UnsupportedArchitectureError as error:
            raise UnsupportedArchitectureError(f"{where}: {error}", param="model") from None
    if attention_mask is None and getattr(module, "is_causal", False):
        return Reach()
    raise UnsupportedArchitectureError(
        f"{where} builds its mask outside transformers' mask interface, or is not causal",
        param="model",
    )
