"""Multiple choice by log-likelihood: which option the model would rather write."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lab.corpus import Prompt
from lab.corpus.multiple_choice import ANSWER


def preferred(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Prompt],
    system: str | None = None,
) -> list[str]:
    """Return, for each question, the option with the highest total log-probability.

    Each option is scored as the continuation of the chat and "The answer is". One forward pass per
    question, over its options.

    Args:
        model: Any causal language model.
        tokenizer: Its tokenizer, with a chat template.
        asked: Multiple-choice prompts.
        system: System prompt.
    """
    return [_best(model, tokenizer, prompt, system) for prompt in asked]


def _best(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    system: str | None,
) -> str:
    chat = tokenizer.apply_chat_template(
        prompt.messages(system), tokenize=False, add_generation_prompt=True
    )
    start = tokenizer.encode(f"{chat}{ANSWER}", add_special_tokens=False)
    ends = [tokenizer.encode(f" {c}", add_special_tokens=False) for c in prompt.choices]
    longest = max(len(end) for end in ends)
    # Right padding needs no mask under causal attention; padded positions are not scored.
    rows = [start + end + [0] * (longest - len(end)) for end in ends]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(rows, device=model.device)).logits.float()
    log_probs = logits.log_softmax(dim=-1)  # [4, T, V]
    scores = [
        sum(float(log_probs[row, len(start) + i - 1, token]) for i, token in enumerate(end))
        for row, end in enumerate(ends)
    ]
    return prompt.choices[scores.index(max(scores))]
