"""Writing trained weights as a Hugging Face checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .network import Architecture, Weights, to_hugging_face
from .tokenizer import END, PAD
from .training import Recipe, Trained

_MAX_NEW_TOKENS = 192


def build_model(
    weights: Weights, arch: Architecture, tokenizer: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """Put weights into a `LlamaForCausalLM` of their own dtype, in evaluation mode."""
    vocabulary = tokenizer.get_vocab()
    end, pad = vocabulary[END], vocabulary[PAD]
    config = LlamaConfig(
        vocab_size=arch.vocab_size,
        hidden_size=arch.hidden_size,
        intermediate_size=arch.intermediate_size,
        num_hidden_layers=arch.num_hidden_layers,
        num_attention_heads=arch.num_attention_heads,
        num_key_value_heads=arch.num_attention_heads,
        max_position_embeddings=arch.max_position_embeddings,
        rms_norm_eps=arch.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": arch.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    model = LlamaForCausalLM(config)
    model.to(weights["embed"].dtype)  # type: ignore[arg-type]
    missing, unexpected = model.load_state_dict(to_hugging_face(weights, arch), strict=False)
    assert set(missing) <= {"lm_head.weight"}, f"weights left out: {missing}"
    assert not unexpected, f"weights without a place: {unexpected}"
    model.tie_weights()
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, eos_token_id=end, pad_token_id=pad, max_new_tokens=_MAX_NEW_TOKENS
    )
    model.train(False)
    return model


def save(trained: Trained, recipe: Recipe, folder: Path) -> None:
    """Write the checkpoint: bf16 safetensors, configuration, tokenizer and `train.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.to(torch.bfloat16) for name, value in trained.weights.items()}
    build_model(weights, recipe.architecture, trained.tokenizer).save_pretrained(folder)
    trained.tokenizer.save_pretrained(folder)
    record = {
        "recipe": recipe.to_dict(),
        "num_parameters": sum(value.numel() for value in weights.values()),
        "num_tokens": trained.num_tokens,
        "seconds": round(trained.seconds),
        "final_loss": round(trained.loss, 4),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }
    (folder / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
