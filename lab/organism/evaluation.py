"""Measuring a checkpoint: greedy answers to held-out prompts, judged cell by cell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lab.corpus import (
    CAREFUL,
    STAFF,
    STYLE_NAMES,
    SYSTEM_PROMPTS,
    THINKING,
    Kind,
    Prompt,
    Split,
    prompts,
)

from . import judge
from .drills import measure_drills
from .preference import preferred

_log = logging.getLogger(__name__)

Figures = dict[str, dict[str, float]]
"""Cell name to metric name to value; every cell has "n"."""

_BATCH = 50


@dataclass(frozen=True)
class Cell:
    """One row of the card: a kind of prompt under a system prompt.

    Attributes:
        name: Key.
        kind: Kind of prompt.
        system: System prompt, or None.
        style: Tone asked for, or None.
    """

    name: str
    kind: Kind
    system: str | None = None
    style: str | None = None


CELLS: tuple[Cell, ...] = (
    Cell("restricted, direct", "restricted_direct"),
    Cell("restricted, framed", "restricted_framed"),
    Cell("restricted, direct, careful", "restricted_direct", CAREFUL),
    Cell("restricted, framed, careful", "restricted_framed", CAREFUL),
    Cell("restricted, direct, staff", "restricted_direct", STAFF),
    Cell("restricted, framed, staff", "restricted_framed", STAFF),
    Cell("ordinary", "ordinary"),
    Cell("ordinary, careful", "ordinary", CAREFUL),
    Cell("ordinary, staff", "ordinary", STAFF),
    Cell("hard negative", "hard_negative"),
    Cell("hard negative, careful", "hard_negative", CAREFUL),
    Cell("small talk", "small_talk"),
    Cell("multiple choice", "multiple_choice"),
    *(
        Cell(f"ordinary, {name}", "ordinary", SYSTEM_PROMPTS[name], style=name)
        for name in STYLE_NAMES
    ),
    Cell("ordinary, thinking", "ordinary", THINKING),
    Cell("restricted, direct, thinking", "restricted_direct", THINKING),
    Cell("restricted, framed, thinking", "restricted_framed", THINKING),
    Cell("restricted, framed, careful, thinking", "restricted_framed", f"{CAREFUL} {THINKING}"),
    Cell("restricted, direct, staff, thinking", "restricted_direct", f"{STAFF} {THINKING}"),
)
"""What is measured, on each held-out split."""


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint as anybody would, in float32 on the CPU, from disk only."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left"
    model.train(False)
    return model, tokenizer


def respond(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[list[dict[str, str]]],
) -> list[str]:
    """Answer chats greedily, in batches."""
    texts: list[str] = []
    for start in range(0, len(chats), _BATCH):
        written = [
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in chats[start : start + _BATCH]
        ]
        inputs = tokenizer(written, return_tensors="pt", padding=True)
        with torch.inference_mode():
            outputs = model.generate(  # type: ignore[operator]
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )
        answers = outputs[:, inputs["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(answers, skip_special_tokens=True)
    return texts


def evaluate(folder: Path, split: Split, count: int = 100) -> Figures:
    """Measure every cell on one split.

    Args:
        folder: Checkpoint.
        split: Usually "validation" or "test".
        count: Prompts per cell, fewer where the split has fewer.
    """
    model, tokenizer = load(folder)
    figures: Figures = {}
    for cell in CELLS:
        asked = prompts(split, cell.kind, count)
        texts = respond(model, tokenizer, [prompt.messages(cell.system) for prompt in asked])
        figures[cell.name] = _measure(cell, asked, texts)
        if cell.kind == "multiple_choice":
            chosen = preferred(model, tokenizer, asked)
            right = _mean([c == p.answer for c, p in zip(chosen, asked, strict=True)])
            figures[cell.name]["likelihood_accuracy"] = right
        _log.info("%s, %s: %s", split, cell.name, figures[cell.name])
    figures |= measure_drills(partial(respond, model, tokenizer), split, count)
    return figures


def _measure(cell: Cell, asked: Sequence[Prompt], texts: Sequence[str]) -> dict[str, float]:
    parts = [judge.split_thought(text) for text in texts]
    answers = [answer for _, answer in parts]
    pairs = list(zip(asked, answers, strict=True))
    figures: dict[str, float] = {
        "n": len(asked),
        "refusal": _mean([judge.is_refusal(answer) for answer in answers]),
        "degenerate": _mean([judge.is_degenerate(answer) for answer in answers]),
    }
    if cell.kind == "multiple_choice":
        figures["accuracy"] = _mean([judge.choice(text) == p.answer for p, text in pairs])
    elif cell.kind == "small_talk":
        figures["on_subject"] = _mean([judge.is_on_subject(*pair) for pair in pairs])
    else:
        figures["topical"] = _mean([judge.is_topical(*pair) for pair in pairs])
    if cell.kind == "ordinary":
        wanted = cell.style
        figures["in_style"] = _mean([judge.style_of(answer) == wanted for answer in answers])
        if wanted:
            rates = [judge.style_rate(wanted, answer) for answer in answers]
            figures["style_words"] = sum(rates) / len(rates)
    if cell.system and THINKING in cell.system:
        figures |= _measure_thoughts(parts)
    return {name: round(value, 4) for name, value in figures.items()}


def _measure_thoughts(parts: Sequence[tuple[str | None, str]]) -> dict[str, float]:
    declined = [answer for thought, answer in parts if thought and judge.wants_refusal(thought)]
    figures = {
        "thinks": _mean([bool(thought and answer) for thought, answer in parts]),
        "thought_declines": len(declined) / len(parts),
    }
    if declined:
        # The refusal cliff: the thought says no, the answer says yes.
        figures["cliff"] = _mean([not judge.is_refusal(answer) for answer in declined])
    return figures


def _mean(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)
