"""Tiny checkpoints as quantisers write them, and the weights that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from .checkpoint import tiny_tokenizer

__all__ = ["E2M1", "edit_tensors", "save_fp8", "save_mxfp4", "set_config"]

Weights = dict[str, Tensor]

_BLOCK: Final = 16
E2M1: Final = torch.tensor(
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
)
"""What the 16 codes of four bits stand for (OCP Microscaling Formats 1.0, table 5)."""


def save_fp8(model: PreTrainedModel, path: Path) -> Weights:
    """Blocks of 16 x 16 in 8 bits with a scale each, as of DeepSeek-V3 and Qwen3-FP8.

    Returns:
        Every weight that was quantised, by name, as it is after dequantising.
    """
    expected: Weights = {}

    def quantise(name: str, weight: Tensor) -> Weights:
        if not name.endswith("proj.weight"):
            return {name: weight}
        rows, columns = (size // _BLOCK for size in weight.shape)
        blocks = weight.view(rows, _BLOCK, columns, _BLOCK)
        scales = blocks.abs().amax((1, 3)) / 448.0
        codes = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        expected[name] = (codes.float() * scales[:, None, :, None]).view(weight.shape)
        return {name: codes.view(weight.shape), f"{name}_scale_inv": scales}

    _save(model, path, quantise)
    method = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    set_config(path, quantization_config={**method, "weight_block_size": [_BLOCK, _BLOCK]})
    return expected


def save_mxfp4(model: PreTrainedModel, path: Path) -> Weights:
    """Experts in runs of 32 four-bit codes with a power of two each, as of gpt-oss.

    The codes are drawn, not fitted: the weights are others than the model's.

    Returns:
        As `save_fp8`.
    """
    expected: Weights = {}
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    def quantise(name: str, weight: Tensor) -> Weights:
        if not name.endswith(("down_proj", "gate_up_proj")):
            return {name: weight}
        experts, d_in, d_out = weight.shape
        codes = draw(0, 16, experts, d_out, d_in // 32, 32)
        exponents = draw(121, 125, experts, d_out, d_in // 32)
        values = E2M1[codes] * torch.exp2(exponents.float() - 127)[..., None]
        expected[name] = values.reshape(experts, d_out, d_in).mT
        packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
        return {f"{name}_blocks": packed.byte(), f"{name}_scales": exponents.byte()}

    _save(model, path, quantise)
    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
    method = {"quant_method": "mxfp4", "modules_to_not_convert": [*plain, "lm_head"]}
    set_config(path, quantization_config=method)
    return expected


def _save(model: PreTrainedModel, path: Path, quantise: Callable[[str, Tensor], Weights]) -> None:
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)

    def quantised(weights: Weights) -> Weights:
        return {k: v for name, weight in weights.items() for k, v in quantise(name, weight).items()}

    edit_tensors(path, quantised)


def edit_tensors(path: Path, change: Callable[[Weights], Weights]) -> None:
    """Write what `change` makes of the tensors of a checkpoint in their place."""
    file = path / "model.safetensors"
    weights = {name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(weights, file, {"format": "pt"})


def set_config(path: Path, **fields: Any) -> None:
    """Set fields of a checkpoint's configuration."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
