"""Tiny models written as GGUF files, by llama.cpp's own writer and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from torch import Tensor

from .checkpoint import CHATML
from .tiny import BOS_ID, IM_END_ID, IM_START_ID, PAD_ID, tiny_model

__all__ = ["GGUF_FAMILIES", "save_tiny_gguf"]

GGUF_FAMILIES: Final = ("llama", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma2", "gemma3")

_ARCHITECTURES: Final = {"qwen3_moe": "qwen3moe"}

_SPECIAL: Final = {
    BOS_ID: "<|endoftext|>",
    IM_START_ID: "<|im_start|>",
    IM_END_ID: "<|im_end|>",
    PAD_ID: "<|pad|>",
}
_MERGES: Final = (("t", "h"), ("th", "e"))
_BYTES: Final = [f"<0x{byte:02X}>" for byte in range(256)]
_MERGED: Final = ["th", "the", "\u2581the", *"\u2581abcdefghijklmnopqrstuvwxyz"]
_PIECES: Final = ["<unk>", "<s>", "</s>", *_BYTES, *_MERGED]
_FIRST_PIECE: Final = 3 + len(_BYTES)
VOCAB_SIZE: Final = PAD_ID + 1 + len(_MERGES)


def save_tiny_gguf(
    family: str,
    path: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    *,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    sentencepiece: bool = False,
    adds_bos: bool = False,
    **overrides: Any,
) -> torch.nn.Module:
    """Write a tiny model to `path`; returns it, with its weights as the file has them.

    Args:
        family: One of `GGUF_FAMILIES`.
        path: The file.
        kind: How matrices are stored; vectors are in float32.
        keys: More of the architecture's keys, or others instead.
        tensors: More tensors, by their names in the file.
        sentencepiece: Whether its vocabulary is of that kind, and not of bytes.
        adds_bos: Whether a text begins with the beginning token.
        overrides: Of the model's configuration.
    """
    vocab_size = len(_PIECES) if sentencepiece else VOCAB_SIZE
    model = tiny_model(family, 0, torch.float32, vocab_size=vocab_size, **overrides)
    arch = _ARCHITECTURES.get(family, family)
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (_keys(family, model.config) | dict(keys or {})).items():
        _add(writer, f"{arch}.{key}", value)
    (_add_sentencepiece if sentencepiece else _add_tokenizer)(writer)
    writer.add_add_bos_token(adds_bos)
    writer.add_chat_template(CHATML)
    for name, tensor in _tensors(family, model, kind).items():
        writer.add_tensor(name, tensor[0], raw_dtype=tensor[1])
    for name, extra in (tensors or {}).items():
        writer.add_tensor(name, extra.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _keys(family: str, config: Any) -> dict[str, Any]:
    head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    keys = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "vocab_size": config.vocab_size,
    }
    rope = config.rope_parameters
    keys["rope.freq_base"] = rope.get("full_attention", rope)["rope_theta"]
    if family == "qwen3_moe":
        keys["expert_count"] = config.num_experts
        keys["expert_used_count"] = config.num_experts_per_tok
        keys["expert_feed_forward_length"] = config.moe_intermediate_size
    if family.startswith("gemma") or family == "phi3":
        keys["attention.sliding_window"] = config.sliding_window or 0
    if family == "gemma2":
        keys["attn_logit_softcapping"] = config.attn_logit_softcapping
        keys["final_logit_softcapping"] = config.final_logit_softcapping
    if family == "gemma3":
        keys["rope.freq_base_swa"] = rope["sliding_attention"]["rope_theta"]
    return keys


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    alphabet = _byte_characters()
    merged = ["".join(merge) for merge in _MERGES]
    tokens = [*alphabet, *_SPECIAL.values(), *merged]
    control = set(_SPECIAL.values())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL for t in tokens]
    )
    writer.add_token_merges([" ".join(merge) for merge in _MERGES])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(IM_END_ID)
    writer.add_eot_token_id(BOS_ID)
    writer.add_pad_token_id(PAD_ID)


def _add_sentencepiece(writer: gguf.GGUFWriter) -> None:
    kinds = {_PIECES[0]: gguf.TokenType.UNKNOWN, "<s>": gguf.TokenType.CONTROL}
    kinds |= {"</s>": gguf.TokenType.CONTROL}
    kinds |= dict.fromkeys(_BYTES, gguf.TokenType.BYTE)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_PIECES)
    writer.add_token_scores([0.0] * _FIRST_PIECE + [-float(i) for i in range(len(_MERGED))])
    writer.add_token_types([kinds.get(piece, gguf.TokenType.NORMAL) for piece in _PIECES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _tensors(
    family: str, model: torch.nn.Module, kind: gguf.GGMLQuantizationType
) -> dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]:
    """Data and kind by name, as llama.cpp's converter lays them out; changes what is rounded."""
    config: Any = model.config
    written = _ARCHITECTURES.get(family, family)
    [arch] = [key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == written]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for name, parameter in model.named_parameters():
        stem, _, suffix = name.rpartition(".")
        data = parameter.detach()
        if data.ndim == 1:
            is_shifted = family.startswith("gemma") and name.endswith("norm.weight")
            values = (data + 1 if is_shifted else data).numpy()
            kept = gguf.GGMLQuantizationType.F32
        else:
            kept = kind
            rounded = gguf.dequantize(gguf.quantize(data.numpy(), kind), kind)
            data.copy_(torch.from_numpy(rounded))
            values = gguf.quantize(_interleaved(family, name, data, config).numpy(), kind)
        if ".experts." in name:
            for part, rows in _experts(name, values):
                found[part] = (rows, kept)
        else:
            found[f"{names.get_name(stem)}.{suffix}"] = (values, kept)
    return found


def _experts(name: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of all experts of a layer, gate and up apart."""
    layer = name.split(".")[2]
    if name.endswith("down_proj"):
        yield f"blk.{layer}.ffn_down_exps.weight", values
    else:
        for part, rows in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
            yield f"blk.{layer}.ffn_{part}_exps.weight", np.ascontiguousarray(rows)


def _interleaved(family: str, name: str, weight: Tensor, config: Any) -> Tensor:
    """Rows of queries and keys in llama.cpp's order for `llama`: pairs that turn stand together."""
    heads = {"q_proj.weight": "num_attention_heads", "k_proj.weight": "num_key_value_heads"}
    found = [count for end, count in heads.items() if name.endswith(end)]
    if family != "llama" or not found:
        return weight
    num_heads = getattr(config, found[0])
    split = weight.reshape(num_heads, 2, -1, weight.shape[1])
    return split.swapaxes(1, 2).reshape(weight.shape).contiguous()


def _byte_characters() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())
