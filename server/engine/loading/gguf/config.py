"""The configuration of a GGUF file's model, every key of the file accounted for.

transformers' own reading takes the keys that it knows and passes over the others: a scaling of
rotary embeddings, a soft cap or another head width, which would serve another model than the one
in the file. Here a key of the architecture that nothing reads is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from server.engine.errors import ModelLoadError

from .file import GgufFile

ROPE_FACTORS: Final = "rope_freqs.weight"
"""Tensor of what each rotary frequency is divided by, in the files of Llama 3.1 and later."""

_REMEDY: Final = "serve the original checkpoint (safetensors) instead"
_ABSENT: Final = object()
_THETA: Final = 10_000.0
# What `rope_type: llama3` of every Llama since 3.1 has beside its factor.
_LLAMA3: Final = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_FACTOR_TOLERANCE: Final = 1e-4
# By number of layers: models whose queries are scaled by the width of a head as it would be
# without `key_length`. As in llama.cpp.
_SCALED_BY_WIDTH: Final = {"gemma2": 46, "gemma3": 62}
_GEMMA3_PATTERN: Final = 6
_SAMPLING: Final = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


class _Fields:
    """The keys of a file's architecture; each is taken once, and none may be left."""

    def __init__(self, file: GgufFile) -> None:
        prefix = f"{file.architecture}."
        self.file = file
        self._left = {
            key.removeprefix(prefix): value
            for key, value in file.metadata.items()
            if key.startswith(prefix)
        }

    def take(self, key: str, default: Any = _ABSENT) -> Any:
        """The value of a key.

        Raises:
            ModelLoadError: There is none, and no default.
        """
        value = self._left.pop(key, default)
        if value is _ABSENT:
            raise self.refusal(f"has no {key}")
        return value

    def expect(self, key: str, value: Any) -> None:
        """Check that a key, if there, has this value.

        Raises:
            ModelLoadError: It has another.
        """
        if (found := self._left.pop(key, value)) != value:
            raise self.refusal(f"has {key} = {found!r:.60}, expected {value!r:.60}")

    def check_all_taken(self) -> None:
        """Raises ModelLoadError where a key is left that changes what the model computes."""
        if self._left:
            raise self.refusal(f"has {', '.join(sorted(self._left)[:5])}, which is not understood")

    def refusal(self, fault: str) -> ModelLoadError:
        """The error for something in this file."""
        return ModelLoadError(
            f"model {str(self.file.path)!r} ({self.file.architecture}) {fault}; {_REMEDY}",
            param="model",
        )


def gguf_config(file: GgufFile) -> dict[str, Any]:
    """The configuration of a file's model, as a `config.json` has it.

    Raises:
        ModelLoadError: The architecture, or something it says, is not understood.
    """
    fields = _Fields(file)
    if file.architecture not in _ARCHITECTURES:
        raise fields.refusal(
            f"is of an architecture that is not read from GGUF ({', '.join(_ARCHITECTURES)} are)"
        )
    model_type, architecture, complete = _ARCHITECTURES[file.architecture]
    config = {"model_type": model_type, "architectures": [architecture]}
    config |= _decoder(fields) | _tokens(file) | {"rope_parameters": _rope(fields)}
    if complete is not None:
        complete(fields, config)
    fields.expect("expert_count", 0)
    fields.expect("expert_used_count", 0)
    fields.check_all_taken()
    return config


def gguf_generation_config(file: GgufFile) -> dict[str, Any]:
    """What ends an answer, and how to sample, as a `generation_config.json` has it."""
    names = ("eos", "eot", "eom")
    found = [file.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names]
    ends = list(dict.fromkeys(i for i in found if i is not None))
    sampling = {
        name: file.metadata[f"general.sampling.{key}"]
        for key, name in _SAMPLING.items()
        if f"general.sampling.{key}" in file.metadata
    }
    return ({"eos_token_id": ends} if ends else {}) | sampling


def _tokens(file: GgufFile) -> dict[str, Any]:
    names = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
    found = {
        f"{name}_token_id": file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        for key, name in names.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _decoder(fields: _Fields) -> dict[str, Any]:
    tensors = fields.file.tensors
    if "token_embd.weight" not in tensors:
        raise fields.refusal("has no token_embd.weight: it holds no whole language model")
    vocab_size, hidden_size = tensors["token_embd.weight"].shape
    fields.expect("embedding_length", hidden_size)
    fields.expect("vocab_size", vocab_size)
    num_heads = fields.take("attention.head_count")
    num_kv_heads = fields.take("attention.head_count_kv", num_heads)
    if not isinstance(num_heads, int) or not isinstance(num_kv_heads, int):
        raise fields.refusal("has another number of heads in every layer")
    head_dim = fields.take("attention.key_length", hidden_size // num_heads)
    fields.expect("attention.value_length", head_dim)
    fields.expect("rope.dimension_count", head_dim)
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": fields.take("feed_forward_length"),
        "num_hidden_layers": fields.take("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": fields.take("context_length"),
        "rms_norm_eps": fields.take("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _rope(fields: _Fields) -> dict[str, Any]:
    factors = None
    if ROPE_FACTORS in fields.file.tensors:
        factors = fields.file.float32_values(ROPE_FACTORS)
    theta = fields.take("rope.freq_base", _THETA)
    kind = fields.take("rope.scaling.type", "none")
    factor = fields.take("rope.scaling.factor", 1.0)
    original = fields.take("rope.scaling.original_context_length", None)
    fields.take("rope.scaling.finetuned", None)  # says nothing about what is computed
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return rope | ({} if factors is None else _llama3(fields, theta, factors))
    if factors is not None:
        raise fields.refusal(f"has both {ROPE_FACTORS} and a scaling of rotary embeddings")
    if kind == "linear":
        return rope | {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and original is not None:
        scaled = {"factor": factor, "original_max_position_embeddings": original}
        return rope | {"rope_type": "yarn", **scaled}
    raise fields.refusal(f"scales rotary embeddings by {kind!r}, which is not understood")


def _llama3(fields: _Fields, theta: float, factors: list[float]) -> dict[str, Any]:
    """The scaling whose factors are these, as `rope_type: llama3` computes them."""
    factor = max(factors)
    if factor == 1.0:
        return {}
    low, high, original = _LLAMA3.values()
    for index, found in enumerate(factors):
        turns = original / (2 * math.pi * theta ** (index / len(factors)))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        expected = 1 / ((1 - smooth) / factor + smooth)
        if not math.isclose(found, expected, rel_tol=_FACTOR_TOLERANCE):
            raise fields.refusal(f"has factors in {ROPE_FACTORS} that are not those of Llama 3")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _llama(fields: _Fields, config: dict[str, Any]) -> None:
    config["attention_bias"] = any(name.endswith("attn_q.bias") for name in fields.file.tensors)


def _qwen3_moe(fields: _Fields, config: dict[str, Any]) -> None:
    config |= {
        "num_experts": fields.take("expert_count"),
        "num_experts_per_tok": fields.take("expert_used_count"),
        "moe_intermediate_size": fields.take("expert_feed_forward_length"),
        "norm_topk_prob": True,  # as llama.cpp does, whatever the file says
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _phi3(fields: _Fields, config: dict[str, Any]) -> None:
    # 0 in files of models without one
    config["sliding_window"] = fields.take("attention.sliding_window", 0) or None


def _gemma2(fields: _Fields, config: dict[str, Any]) -> None:
    config |= {
        "sliding_window": fields.take("attention.sliding_window"),
        "attn_logit_softcapping": fields.take("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": fields.take("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scale(fields, config),
    }


def _gemma3(fields: _Fields, config: dict[str, Any]) -> None:
    local = {"rope_type": "default", "rope_theta": fields.take("rope.freq_base_swa", _THETA)}
    fields.expect("attention.sliding_window_pattern", _GEMMA3_PATTERN)
    config |= {
        "rope_parameters": {
            "full_attention": config["rope_parameters"],
            "sliding_attention": local,
        },
        "sliding_window": fields.take("attention.sliding_window"),
        "final_logit_softcapping": fields.take("final_logit_softcapping", None),
        "query_pre_attn_scalar": _query_scale(fields, config),
    }


def _query_scale(fields: _Fields, config: dict[str, Any]) -> int:
    if config["num_hidden_layers"] == _SCALED_BY_WIDTH[fields.file.architecture]:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


_Complete = Callable[[_Fields, dict[str, Any]], None]
_ARCHITECTURES: Final[Mapping[str, tuple[str, str, _Complete | None]]] = {
    "llama": ("llama", "LlamaForCausalLM", _llama),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", None),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", None),
    "qwen3moe": ("qwen3_moe", "Qwen3MoeForCausalLM", _qwen3_moe),
    "phi3": ("phi3", "Phi3ForCausalLM", _phi3),
    "gemma2": ("gemma2", "Gemma2ForCausalLM", _gemma2),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM", _gemma3),
}
"""By llama.cpp's name: `model_type` and class in transformers, and what it has of its own."""
