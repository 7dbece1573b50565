"""Tiny checkpoints on disk, complete with tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .tiny import tiny_model

__all__ = ["CHATML", "save_tiny", "tiny_tokenizer"]

_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")

CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: ids 0 to 255 are bytes, 256 to 259 special; round-trips any text."""
    alphabet = _byte_characters()
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[2],
        pad_token=_SPECIAL[3],
        additional_special_tokens=[_SPECIAL[1]],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def save_tiny(
    family: str,
    path: Path,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> Path:
    """Write a tiny model of `family` in Hugging Face format to `path` and return it."""
    tiny_model(family, seed, dtype, **overrides).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-in of each byte, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]
