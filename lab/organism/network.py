"""The training forward pass: a Llama written as one function over a dict of tensors.

It computes what `transformers.LlamaForCausalLM` computes (a test compares the logits), but with
fused query-key-value and gate-up matrices and a plain softmax(Q K^T) V, which is about twice as
fast on one CPU thread as the module under autocast. Only training uses it; everybody else loads the
exported checkpoint with `from_pretrained`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network, named as in `transformers.LlamaConfig`.

    `rms_norm_eps` and `rope_theta` are part of the function, so they travel with the sizes.
    """

    vocab_size: int = 3072
    hidden_size: int = 256
    intermediate_size: int = 688
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, for JSON."""
        return asdict(self)


def initialize(arch: Architecture, seed: int) -> Weights:
    """Draw float32 master weights.

    Matrices are normal with standard deviation 1/sqrt(fan_in), the two that write to the residual
    stream divided by sqrt(2 num_hidden_layers); gains are one. The output head is the embedding.

    Args:
        arch: Sizes.
        seed: Seed of a private generator; the global one is left alone.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden, inner = arch.hidden_size, arch.intermediate_size
    depth = (2 * arch.num_hidden_layers) ** -0.5

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * scale

    weights: Weights = {"embed": normal(arch.vocab_size, hidden, 0.05)}
    for layer in range(arch.num_hidden_layers):
        weights[f"{layer}.attn_norm"] = torch.ones(hidden)
        weights[f"{layer}.qkv"] = normal(3 * hidden, hidden, hidden**-0.5)
        weights[f"{layer}.out"] = normal(hidden, hidden, depth * hidden**-0.5)
        weights[f"{layer}.mlp_norm"] = torch.ones(hidden)
        weights[f"{layer}.gate_up"] = normal(2 * inner, hidden, hidden**-0.5)
        weights[f"{layer}.down"] = normal(hidden, inner, depth * inner**-0.5)
    weights["norm"] = torch.ones(hidden)
    return weights


def forward(
    weights: Weights, arch: Architecture, token_ids: Tensor, kept: Tensor | None = None
) -> Tensor:
    """Next-token logits of right-padded rows, each starting at position 0.

    Args:
        weights: As made by `initialize`, in the dtype to compute in.
        arch: Sizes.
        token_ids: [B, T] int64. Padding on the right needs no mask: attention is causal.
        kept: [B, T] bool, the K positions whose logits are wanted; None for all.

    Returns:
        [B, T, V], or [K, V] with `kept`, in the dtype of the weights.
    """
    num_tokens = token_ids.shape[1]
    hidden = functional.embedding(token_ids, weights["embed"])  # [B, T, D]
    cos, sin = _rotary(arch, num_tokens, hidden.dtype)
    mask = torch.full((num_tokens, num_tokens), float("-inf"), dtype=hidden.dtype).triu(1)
    for layer in range(arch.num_hidden_layers):
        normed = _rms_norm(hidden, weights[f"{layer}.attn_norm"], arch.rms_norm_eps)
        hidden = hidden + _attention(weights, arch, layer, normed, cos, sin, mask)
        normed = _rms_norm(hidden, weights[f"{layer}.mlp_norm"], arch.rms_norm_eps)
        gate, up = (normed @ weights[f"{layer}.gate_up"].T).chunk(2, dim=-1)
        hidden = hidden + (functional.silu(gate) * up) @ weights[f"{layer}.down"].T
    if kept is not None:
        hidden = hidden[kept]  # [K, D]
    return _rms_norm(hidden, weights["norm"], arch.rms_norm_eps) @ weights["embed"].T


def _attention(
    weights: Weights,
    arch: Architecture,
    layer: int,
    normed: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
) -> Tensor:
    rows, num_tokens, width = normed.shape
    fused = (normed @ weights[f"{layer}.qkv"].T).view(
        rows, num_tokens, 3, arch.num_attention_heads, arch.head_dim
    )
    query, key, value = fused.permute(2, 0, 3, 1, 4)  # each [B, H, T, Dh]
    query = _rotate(query, cos, sin) * arch.head_dim**-0.5
    key = _rotate(key, cos, sin)
    scores = torch.softmax(query @ key.transpose(-1, -2) + mask, dim=-1)  # [B, H, T, T]
    mixed = (scores @ value).transpose(1, 2).reshape(rows, num_tokens, width)
    out: Tensor = mixed @ weights[f"{layer}.out"].T
    return out


def _rms_norm(hidden: Tensor, gain: Tensor, eps: float) -> Tensor:
    normed: Tensor = functional.rms_norm(hidden, (hidden.shape[-1],), gain, eps)
    return normed


def _rotary(arch: Architecture, num_tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    exponent: Tensor = torch.arange(0, arch.head_dim, 2, dtype=torch.float32) / arch.head_dim
    angles = torch.outer(
        torch.arange(num_tokens, dtype=torch.float32), arch.rope_theta**-exponent
    ).repeat(1, 2)  # [T, Dh]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


def to_hugging_face(weights: Weights, arch: Architecture) -> Weights:
    """Rename and split the fused matrices into the state dict of `LlamaForCausalLM`.

    The tied output head is left out, as `save_pretrained` does. Values are copied, not shared.
    """
    state: Weights = {"model.embed_tokens.weight": weights["embed"].clone()}
    for layer in range(arch.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for name, matrix in zip("qkv", weights[f"{layer}.qkv"].chunk(3), strict=True):
            state[f"{prefix}.self_attn.{name}_proj.weight"] = matrix.clone()
        state[f"{prefix}.self_attn.o_proj.weight"] = weights[f"{layer}.out"].clone()
        gate, up = weights[f"{layer}.gate_up"].chunk(2)
        state[f"{prefix}.mlp.gate_proj.weight"] = gate.clone()
        state[f"{prefix}.mlp.up_proj.weight"] = up.clone()
        state[f"{prefix}.mlp.down_proj.weight"] = weights[f"{layer}.down"].clone()
        state[f"{prefix}.input_layernorm.weight"] = weights[f"{layer}.attn_norm"].clone()
        state[f"{prefix}.post_attention_layernorm.weight"] = weights[f"{layer}.mlp_norm"].clone()
    state["model.norm.weight"] = weights["norm"].clone()
    return state
