"""A mask function is read for what it lets a query see, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from server.engine.attention.inspection import MaskRule
from server.engine.attention.spec import Reach
from steering.errors import UnsupportedArchitectureError

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def chunked(size: int) -> Rule:
    rule: Rule = chunked_causal_mask_function(size, torch.zeros(1, dtype=torch.int64))
    return rule


@pytest.mark.parametrize("size", [2, 3, 8, 100, 512, 8192, 1 << 17])
def test_windows_and_chunks_are_told_apart(size: int) -> None:
    window = MaskRule(mask_function=sliding_window_causal_mask_function(size))
    assert window.reach() == Reach(window=size)
    assert MaskRule(mask_function=chunked(size)).reach() == Reach(chunk=size)


def test_a_plain_causal_rule_has_no_limit() -> None:
    assert MaskRule(mask_function=causal_mask_function).reach() == Reach()


def prefix(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key <= query) | (key < 16)


def everything(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key >= 0) & (query >= 0)


def window_and_sinks(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key <= query) & ((key > query - 64) | (key < 4))


def window_in_chunks(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key <= query) & (key > query - 64) & (key // 100 == query // 100)


def strided(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key <= query) & ((query - key) % 3 == 0)


@pytest.mark.parametrize("rule", [prefix, everything, window_and_sinks, window_in_chunks, strided])
def test_any_other_rule_is_refused(rule: Rule) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="not causal with at most a sliding"):
        MaskRule(mask_function=rule).reach()


@pytest.mark.parametrize("reach", [Reach(), Reach(window=5), Reach(chunk=4)])
def test_the_first_key_is_that_of_the_rule(reach: Reach) -> None:
    rules = {
        Reach(): causal_mask_function,
        Reach(window=5): sliding_window_causal_mask_function(5),
        Reach(chunk=4): chunked(4),
    }
    positions = torch.arange(20)
    zero = torch.tensor(0)
    visible = rules[reach](zero, zero, positions[:, None], positions[None, :])
    found = [max(reach.first(position), 0) for position in range(20)]
    assert found == visible.int().argmax(dim=1).tolist()
