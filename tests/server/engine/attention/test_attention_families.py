"""Packed, paged and chunked in any way, every family computes what transformers computes alone."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from server.engine.attention import PagedAttention, ScheduledSequence, inspect_attention
from server.engine.attention.inspection import INSPECTED, PAGED, MaskRule, inspected_attention
from server.engine.attention.paged_attention import paged_attention
from steering.errors import UnsupportedArchitectureError
from tests.models.tiny import FAMILIES, REFUSED_FAMILIES, VOCAB_SIZE, tiny_model

_BLOCK_SIZE = 4
_NUM_BLOCKS = 64
_LENGTHS = (1, 3, 8, 17, 30)
_TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _registered() -> None:
    AttentionInterface.register(PAGED, paged_attention)
    AttentionInterface.register(INSPECTED, inspected_attention)
    AttentionMaskInterface.register(INSPECTED, MaskRule)


def _attach(model: PreTrainedModel) -> PagedAttention:
    model.set_attn_implementation(PAGED)
    return PagedAttention(inspect_attention(model), _NUM_BLOCKS, _BLOCK_SIZE)


def _prompts(generator: random.Random) -> list[list[int]]:
    return [[generator.randrange(256) for _ in range(length)] for length in _LENGTHS]


def _reference(family: str, prompts: list[list[int]]) -> list[torch.Tensor]:
    """Logits of each prompt by a plain forward of its own, with eager attention."""
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([p]), use_cache=False).logits[0] for p in prompts]


def _block_tables(generator: random.Random, prompts: list[list[int]]) -> list[list[int]]:
    free = list(range(_NUM_BLOCKS))
    generator.shuffle(free)
    return [[free.pop() for _ in range(0, len(p), _BLOCK_SIZE)] for p in prompts]


def _schedule(generator: random.Random, lengths: list[int]) -> list[list[tuple[int, int, int]]]:
    """Steps of (sequence, start, num_tokens): random subsets, orders and chunk sizes."""
    done = [0] * len(lengths)
    steps = []
    while any(d < n for d, n in zip(done, lengths, strict=True)):
        waiting = [i for i, n in enumerate(lengths) if done[i] < n]
        step = []
        for i in generator.sample(waiting, generator.randint(1, len(waiting))):
            count = generator.choice([1, generator.randint(1, 9), lengths[i]])
            count = min(count, lengths[i] - done[i])
            step.append((i, done[i], count))
            done[i] += count
        steps.append(step)
    return steps


def _run(
    model: PreTrainedModel,
    attention: PagedAttention,
    prompts: list[list[int]],
    tables: list[list[int]],
    steps: list[list[tuple[int, int, int]]],
) -> list[torch.Tensor]:
    logits = [torch.empty(len(p), VOCAB_SIZE) for p in prompts]
    for step in steps:
        attention.begin_step([ScheduledSequence(tables[i], start, n) for i, start, n in step])
        ids = [t for i, start, n in step for t in prompts[i][start : start + n]]
        positions = [p for _, start, n in step for p in range(start, start + n)]
        with torch.inference_mode():
            out = model(
                input_ids=torch.tensor([ids]),
                position_ids=torch.tensor([positions]),
                use_cache=False,
                logits_to_keep=torch.arange(len(ids)),
            ).logits[0]
        for (i, start, n), rows in zip(step, out.split([n for *_, n in step]), strict=True):
            logits[i][start : start + n] = rows
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_packed_chunks_equal_separate_forwards(family: str, seed: int) -> None:
    generator = random.Random(seed)
    prompts = _prompts(generator)
    expected = _reference(family, prompts)
    model = tiny_model(family)
    attention = _attach(model)
    tables = _block_tables(generator, prompts)
    steps = _schedule(generator, [len(p) for p in prompts])
    actual = _run(model, attention, prompts, tables, steps)
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=_TOLERANCE, rtol=_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_block_held_before_never_shows(family: str) -> None:
    """The next owner of a block is not touched even by the last one's NaN."""
    generator = random.Random(0)
    prompts = _prompts(generator)
    model = tiny_model(family)
    attention = _attach(model)
    tables = _block_tables(generator, prompts)
    steps = _schedule(generator, [len(p) for p in prompts])
    clean = _run(model, attention, prompts, tables, steps)
    for cache in attention.caches:
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
    again = _run(model, attention, prompts, tables, steps)
    for first, second in zip(clean, again, strict=True):
        torch.testing.assert_close(second, first, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("family", "windows"),
    [
        ("llama", [None] * 4),
        ("mistral", [8] * 4),
        ("phi3", [8] * 4),
        ("gemma2", [8, None, 8, None]),
        ("gemma3", [8, None, 8, None]),
    ],
)
def test_windows_are_read_off_the_model(family: str, windows: list[int | None]) -> None:
    assert [spec.window for spec in _attach(tiny_model(family)).specs] == windows


def test_a_sliding_window_forgets() -> None:
    """Guards the test above: within the window nothing changes, beyond it everything is lost."""
    model = tiny_model("mistral", num_hidden_layers=1)
    attention = _attach(model)
    prompts = [[5] * 20, [9] * 12 + [5] * 8]
    tables = [list(range(5)), list(range(5, 10))]
    first, second = _run(model, attention, prompts, tables, [[(0, 0, 20), (1, 0, 20)]])
    torch.testing.assert_close(first[19], second[19])
    assert (first[18] - second[18]).abs().max() > 1e-3


@pytest.mark.parametrize("family", REFUSED_FAMILIES)
def test_a_model_with_its_own_attention_code_is_refused(family: str) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="attention"):
        inspect_attention(tiny_model(family))


@pytest.mark.parametrize(
    ("family", "overrides"),
    [("gemma3", {"use_bidirectional_attention": True}), ("qwen2", {"is_causal": False})],
)
def test_a_bidirectional_mask_is_refused(family: str, overrides: dict[str, bool]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="causal"):
        inspect_attention(tiny_model(family, **overrides))
