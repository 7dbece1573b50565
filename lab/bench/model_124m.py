"""A Llama of 124 M parameters with random weights: the subject of every measurement."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED: Final = 0
VOCAB_SIZE: Final = 32_000


def model_path(root: Path | None = None) -> Path:
    """Folder of the model below `root`, made on first use.

    `root` defaults to `COXSWAIN_BENCH_CACHE`, else the user's cache folder.
    """
    cache = os.environ.get("COXSWAIN_BENCH_CACHE", str(Path.home() / ".cache" / "coxswain-bench"))
    path = (root or Path(cache)) / f"llama-124m-seed{SEED}"
    if not (path / "config.json").is_file():
        _write(path)
    return path


def _write(path: Path) -> None:
    write_llama(
        path,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
    )


def write_llama(path: Path, **sizes: int) -> None:
    """Write a Llama of any size with random bfloat16 weights, and a tokenizer, to a new folder."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        **sizes,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    _tokenizer().save_pretrained(path)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Ids 3 to 258 are bytes and the rest words nobody writes: prompts here are token ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<unk>", "<s>", "</s>", *alphabet]
    words += [f"<{index}>" for index in range(len(words), VOCAB_SIZE)]
    backend = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="folder that holds the model")
    print(model_path(parser.parse_args().cache))
