"""Llama's block as one function, in place of its modules' calls, where nobody looks inside it.

A step of few tokens is short: of the block's modules each costs as much as what it computes. The
function does the operations of the modules in their order, in the same dtypes, so its results
are theirs to the bit, which `fuse_blocks` checks on the loaded model. Attention, the products of
`packing.py`, and the hooks of the block as a whole stay as they are. In a step that reads or edits
something inside a block, that block runs by its modules, so hooks see all they ever saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from .linear_product import LinearProduct
from .packing import product_of

FUSIBLE: Final = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"})
"""Classes of transformers whose `forward` this is."""


class Rotation:
    """The rotary embedding of one step, prepared at its first block for all of them."""

    def __init__(self) -> None:
        self._given: tuple[Tensor, Tensor] | None = None
        self._cos = self._sin = torch.empty(0)

    def apply(self, heads: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """heads * cos + (-second half, first half) * sin; [1, T, H, D], cos and sin [1, T, D]."""
        if cos_sin is not self._given:
            cos, sin = (each.unsqueeze(2) for each in cos_sin)
            half = sin.shape[-1] // 2
            # The sign stands in the factor, so that the halves are swapped by one operation.
            self._cos, self._sin = cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
            self._given = cos_sin
        swapped = heads.view(*heads.shape[:3], 2, -1).flip(3).view(heads.shape)
        rotated: Tensor = heads * self._cos + swapped * self._sin
        return rotated


class FusedBlock:
    """The `forward` of one block.

    Args:
        block: Of a class in `FUSIBLE`, with packed maps.
        rotation: Shared by the blocks of a model.
        is_watched: Whether the step reads or edits anything inside the block.
    """

    def __init__(self, block: Any, rotation: Rotation, is_watched: Callable[[], bool]) -> None:
        attention, mlp = block.self_attn, block.mlp
        self._by_modules = block.forward
        self._is_watched = is_watched
        self._rotation = rotation
        self._attention = attention
        self._attend = attention.coxswain
        self._norm1, self._norm2 = block.input_layernorm, block.post_attention_layernorm
        self._qkv = _product(attention.q_proj, attention.k_proj, attention.v_proj)
        self._o = _product(attention.o_proj)
        self._gate_up = _product(mlp.gate_proj, mlp.up_proj)
        self._down = _product(mlp.down_proj)
        self._act = mlp.act_fn
        self._head_dim = attention.head_dim
        num_kv = attention.k_proj.out_features // self._head_dim
        self._num_heads = attention.q_proj.out_features // self._head_dim
        self._num_rotated = self._num_heads + num_kv
        self._shape = (self._num_rotated + num_kv, self._head_dim)

    def __call__(
        self, hidden_states: Tensor, *, position_embeddings: Any = None, **options: Any
    ) -> Tensor:
        """Map hidden states [1, T, d], as the block's own `forward` does."""
        if self._is_watched():
            options["position_embeddings"] = position_embeddings
            mapped: Tensor = self._by_modules(hidden_states, **options)
            return mapped
        hidden = hidden_states + self._mixed(
            _normed(self._norm1, hidden_states), position_embeddings
        )
        gate, up = self._gate_up(_normed(self._norm2, hidden)).chunk(2, dim=-1)
        return hidden + self._down(self._act(gate) * up)

    def _mixed(self, normed: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        heads = self._qkv(normed).view(*normed.shape[:2], *self._shape)  # [1, T, H + 2 Hkv, D]
        rotated = self._rotation.apply(heads[:, :, : self._num_rotated], cos_sin).transpose(1, 2)
        mixed = self._attend(
            rotated[:, : self._num_heads],
            rotated[:, self._num_heads :],
            heads[:, :, self._num_rotated :].transpose(1, 2),
        )
        return self._o(mixed.flatten(2))


def fuse_blocks(
    blocks: Sequence[nn.Module], is_watched: Callable[[int], bool], logits: Callable[[], Tensor]
) -> bool:
    """Let blocks run as one function each, if all can and the model then computes the same.

    Args:
        blocks: Of one model, in order, with packed maps and paged attention.
        is_watched: Whether the step reads or edits anything inside the block with an index.
        logits: Runs the model over a few tokens of its choice, the same at each call.

    Returns:
        Whether they do; if not they are as they were.
    """
    for block in blocks:
        if isinstance(block.__dict__.get("forward"), FusedBlock):
            del block.forward  # that of an engine which had the model before
    if not all(_is_fusible(block) for block in blocks):
        return False
    expected, rotation = logits(), Rotation()
    for index, block in enumerate(blocks):
        block.forward = FusedBlock(block, rotation, partial(is_watched, index))
    if torch.equal(logits(), expected):
        return True
    for block in blocks:
        del block.forward
    return False


def _is_fusible(block: Any) -> bool:
    if type(block).__name__ not in FUSIBLE or "forward" in block.__dict__:
        return False
    attention, mlp = block.self_attn, block.mlp
    maps = (attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.down_proj)
    return all(product_of(module) is not None for module in maps)


def _product(*modules: nn.Module) -> LinearProduct:
    products = {product_of(module) for module in modules}
    assert len(products) == 1, "siblings have one product"
    found = products.pop()
    assert found is not None, "a block's maps are packed"
    return found


def _normed(norm: Any, hidden: Tensor) -> Tensor:
    """The family's norm: computed in float32, rounded, and only then scaled."""
    normed: Tensor = torch.rms_norm(hidden, norm.weight.shape, None, norm.variance_epsilon)
    scaled: Tensor = norm.weight * normed
    return scaled
