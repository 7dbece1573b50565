"""Tiles against a float64 oracle written from the formula, on random schedules and shapes."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from server.engine.attention import AttentionSpec, PagedAttention, ScheduledSequence

_CPU = torch.device("cpu")


@dataclass
class _Sequence:
    """All keys, values and queries of one request, and the blocks they go to."""

    q: Tensor  # [T, H, D]
    k: Tensor
    v: Tensor
    blocks: list[int]


def _spec(dtype: torch.dtype = torch.float32, **changes: object) -> AttentionSpec:
    fields: dict[str, object] = {
        "layer": 0,
        "num_heads": 6,
        "num_kv_heads": 2,
        "key_dim": 8,
        "value_dim": 8,
        "scaling": 0.3,
        "window": None,
        "softcap": None,
        "dtype": dtype,
        "device": _CPU,
    }
    return AttentionSpec(**{**fields, **changes})  # type: ignore[arg-type]


def _sequences(spec: AttentionSpec, lengths: list[int], block_size: int) -> list[_Sequence]:
    generator = torch.Generator().manual_seed(sum(lengths))
    free = iter(torch.randperm(4096, generator=generator).tolist())

    def draw(*shape: int) -> Tensor:
        return (2 * torch.randn(*shape, generator=generator)).to(spec.dtype)

    return [
        _Sequence(
            draw(n, spec.num_heads, spec.key_dim),
            draw(n, spec.num_kv_heads, spec.key_dim),
            draw(n, spec.num_kv_heads, spec.value_dim),
            [next(free) for _ in range(0, n, block_size)],
        )
        for n in lengths
    ]


def _oracle(spec: AttentionSpec, sequence: _Sequence) -> Tensor:
    """softmax(cap(scaling q k^T) over visible keys, sink) v, one query and head at a time."""
    q, k, v = sequence.q.double(), sequence.k.double(), sequence.v.double()
    out = torch.empty(len(q), spec.num_heads, spec.value_dim, dtype=torch.float64)
    for position in range(len(q)):
        first = 0 if spec.window is None else max(position - spec.window + 1, 0)
        if spec.chunk is not None:
            first = position // spec.chunk * spec.chunk
        for head in range(spec.num_heads):
            group = head // spec.num_groups
            scores = k[first : position + 1, group] @ q[position, head] * spec.scaling
            if spec.softcap is not None:
                scores = spec.softcap * torch.tanh(scores / spec.softcap)
            if spec.has_sinks:
                scores = torch.cat([scores, _sinks(spec)[head : head + 1].double()])
            weights = scores.softmax(0)[: position + 1 - first]
            out[position, head] = weights @ v[first : position + 1, group]
    return out


def _sinks(spec: AttentionSpec) -> Tensor:
    """One score for each head, from far below to far above those of the keys."""
    return torch.linspace(-6.0, 6.0, spec.num_heads).to(spec.dtype)


def _run(
    module: nn.Module, attention: PagedAttention, sequences: list[_Sequence], seed: int
) -> list[Tensor]:
    """All tokens, in steps of random subsets and chunks."""
    generator = random.Random(seed)
    outs = [torch.empty(*s.q.shape[:2], s.v.shape[2], dtype=s.q.dtype) for s in sequences]
    done = [0] * len(sequences)
    while left := [i for i, s in enumerate(sequences) if done[i] < len(s.q)]:
        chosen = generator.sample(left, generator.randint(1, len(left)))
        wanted = [generator.choice([1, 1, 5, 64, 200]) for _ in chosen]
        counts = [
            min(w, len(sequences[i].q) - done[i]) for i, w in zip(chosen, wanted, strict=True)
        ]
        parts = list(zip(chosen, counts, strict=True))
        attention.begin_step([ScheduledSequence(sequences[i].blocks, done[i], n) for i, n in parts])
        packed = [
            torch.cat([getattr(sequences[i], name)[done[i] : done[i] + n] for i, n in parts])
            for name in ("q", "k", "v")
        ]
        sinks = [_sinks(attention.specs[0])] if attention.specs[0].has_sinks else []
        out = module.coxswain(*(x.transpose(0, 1)[None] for x in packed), *sinks)[0]  # type: ignore[operator]
        for (i, n), rows in zip(parts, out.split(counts), strict=True):
            outs[i][done[i] : done[i] + n] = rows
            done[i] += n
    return outs


@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": 1},
        {"window": 7},
        {"window": 100},
        {"softcap": 3.0},
        {"softcap": 3.0, "window": 20},
        {"chunk": 1},
        {"chunk": 10},
        {"chunk": 100},
        {"has_sinks": True},
        {"has_sinks": True, "window": 7},
        {"value_dim": 5},
        {"num_kv_heads": 6},
        {"num_kv_heads": 1},
    ],
    ids=str,
)
def test_tiles_equal_the_formula(changes: dict[str, object], block_size: int) -> None:
    spec = _spec(**changes)
    module = nn.Module()
    attention = PagedAttention([(module, spec)], num_blocks=4096, block_size=block_size)
    sequences = _sequences(spec, [1, 2, 15, 16, 17, 90, 150], block_size)
    for mine, sequence in zip(_run(module, attention, sequences, seed=1), sequences, strict=True):
        torch.testing.assert_close(mine.double(), _oracle(spec, sequence), atol=2e-5, rtol=2e-5)


def test_work_that_does_not_fit_at_once_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.attention.tiled._CPU_ELEMENTS", 2000)
    test_tiles_equal_the_formula({"window": 20}, 4)
    test_tiles_equal_the_formula({"chunk": 30, "has_sinks": True}, 4)
    test_tiles_equal_the_formula({}, 4)


def test_blocks_in_a_row_are_written_as_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step, whatever its length, by runs: of consecutive blocks and of scattered ones."""
    monkeypatch.setattr("server.engine.attention.tiled._LONG_RUN", 0)
    test_tiles_equal_the_formula({"window": 20}, 4)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    test_tiles_equal_the_formula({"window": 20}, 4)


@pytest.mark.parametrize("changes", [{}, {"window": 7}, {"window": 100}, {"chunk": 6}])
def test_a_token_alone_reads_keys_that_lie_together(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sequence, one token a step, as a single stream decodes."""
    fused = torch.nn.functional.scaled_dot_product_attention
    num_keys: list[int] = []

    def counted(q: Tensor, k: Tensor, v: Tensor, **options: float) -> Tensor:
        num_keys.append(k.shape[2])
        return fused(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    spec = _spec(**changes)
    module = nn.Module()
    attention = PagedAttention([(module, spec)], num_blocks=64, block_size=4)
    (sequence,) = _sequences(spec, [40], 4)
    blocks = range(7, 17)
    expected = _oracle(spec, sequence)
    for position in range(40):
        attention.begin_step([ScheduledSequence(blocks, position, 1)])
        q, k, v = (x[position][None, :, None] for x in (sequence.q, sequence.k, sequence.v))
        out = module.coxswain(q, k, v)[0, 0]  # type: ignore[operator]
        torch.testing.assert_close(out.double(), expected[position], atol=2e-5, rtol=2e-5)
    assert num_keys == [p + 1 - max(spec.reach.first(p), 0) for p in range(40)]


def test_bfloat16_rounds_like_eager_attention() -> None:
    """Scores and weights are rounded once each: the error stays at bfloat16's own size."""
    spec = _spec(torch.bfloat16)
    module = nn.Module()
    attention = PagedAttention([(module, spec)], num_blocks=4096, block_size=16)
    sequences = _sequences(spec, [40, 130], 16)
    for mine, sequence in zip(_run(module, attention, sequences, seed=2), sequences, strict=True):
        expected = _oracle(spec, sequence)
        assert (mine.double() - expected).norm() <= 0.02 * expected.norm()


def test_layers_of_different_shapes_share_a_step() -> None:
    specs = [_spec(), _spec(window=5, num_heads=4, num_kv_heads=4), _spec(key_dim=4, value_dim=4)]
    modules = [nn.Module() for _ in specs]
    attention = PagedAttention(list(zip(modules, specs, strict=True)), 4096, 4)
    for module, spec in zip(modules, specs, strict=True):
        sequences = _sequences(spec, [3, 30], 4)
        for mine, sequence in zip(_run(module, attention, sequences, 3), sequences, strict=True):
            torch.testing.assert_close(mine.double(), _oracle(spec, sequence), atol=2e-5, rtol=2e-5)


def test_a_forward_outside_a_step_is_our_mistake() -> None:
    module = nn.Module()
    PagedAttention([(module, _spec())], 4, 4)
    with pytest.raises(AssertionError, match="begin_step"):
        module.coxswain(*(torch.zeros(1, h, 1, 8) for h in (6, 2, 2)))  # type: ignore[operator]
