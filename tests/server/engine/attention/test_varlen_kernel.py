"""`varlen_attn` differs between versions of torch: each gets the arguments that it has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from server.engine.attention.varlen_kernel import VarlenKernel, VarlenRows

T = torch.Tensor


# The signatures as they stand in torch/nn/attention/varlen.py of the wheels.
def varlen_attn_2_11(
    query: T,
    key: T,
    value: T,
    cu_seq_q: T,
    cu_seq_k: T,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Any: ...


def varlen_attn_2_12(
    query: T,
    key: T,
    value: T,
    cu_seq_q: T,
    cu_seq_k: T | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: T | None = None,
    block_table: T | None = None,
    num_splits: int | None = None,
) -> Any: ...


VERSIONS: dict[str, Callable[..., Any]] = {
    "2.11": varlen_attn_2_11,
    "2.12": varlen_attn_2_12,
    "2.13": varlen_attn_2_12,
}
OFFSETS = torch.tensor([0, 2, 5], dtype=torch.int32)
GATHERED = VarlenRows(OFFSETS, OFFSETS, 3, 3, gathered=torch.tensor([4, 5, 0, 1, 2]))
PAGED = VarlenRows(
    OFFSETS,
    None,
    3,
    3,
    lengths=torch.tensor([2, 3], dtype=torch.int32),
    table=torch.tensor([[1], [0]], dtype=torch.int32),
)


def test_the_installed_version_is_one_of_them() -> None:
    """Of a new version of torch the signature is to be added above, and looked at."""
    minor = ".".join(torch.__version__.split(".")[:2])
    named = {name: p.kind for name, p in inspect.signature(VERSIONS[minor]).parameters.items()}
    found = {name: p.kind for name, p in inspect.signature(varlen_attn).parameters.items()}
    assert found == named


class Called:
    """Takes calls that fit a version's signature, and says with which arguments."""

    def __init__(self, version: str) -> None:
        self.__signature__ = inspect.signature(VERSIONS[version])
        self.arguments: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        self.arguments = self.__signature__.bind(*args, **kwargs).arguments
        query: Tensor = self.arguments["query"]
        return query


def call(function: Called, kernel: VarlenKernel, rows: VarlenRows) -> dict[str, Any]:
    cache = torch.arange(2 * 4 * 2.0).view(2, 4, 1, 2)
    query = torch.zeros(5, 2, 2)
    assert kernel(query, cache, -cache, rows, scaling=0.5, window=8) is query
    return function.arguments


@pytest.mark.parametrize("version", VERSIONS)
def test_contexts_are_gathered_in_every_version(version: str) -> None:
    function = Called(version)
    kernel = VarlenKernel(None, 9, function)
    assert not kernel.reads_pages
    arguments = call(function, kernel, GATHERED)
    assert arguments["key"][:, 0, 0].tolist() == [8.0, 10.0, 0.0, 2.0, 4.0]
    assert arguments["value"][:, 0, 0].tolist() == [-8.0, -10.0, -0.0, -2.0, -4.0]
    assert arguments["window_size"] == (7, 0)
    assert arguments["scale"] == 0.5
    assert arguments.get("enable_gqa") is (None if version == "2.11" else True)
    assert "block_table" not in arguments


@pytest.mark.parametrize("version", ["2.12", "2.13"])
def test_pages_are_handed_on_where_the_implementation_reads_them(version: str) -> None:
    function = Called(version)
    kernel = VarlenKernel("FA4", 10, function)
    assert kernel.reads_pages
    arguments = call(function, kernel, PAGED)
    assert arguments["key"].shape == (2, 4, 1, 2)
    assert arguments["block_table"] is PAGED.table
    assert arguments["seqused_k"] is PAGED.lengths
    assert arguments["cu_seq_k"] is None


@pytest.mark.parametrize(
    ("version", "implementation", "capability", "reads_pages"),
    [
        ("2.13", None, 10, False),  # torch's own raises
        ("2.13", "FA3", 9, True),
        ("2.13", "FA4", 10, True),
        ("2.13", "FA4", 9, False),  # torch's wrapper refuses block tables on Hopper
        ("2.13", "FA3", 8, False),
        ("2.11", "FA3", 9, False),  # knows no block tables
    ],
)
def test_where_pages_are_read(
    version: str, implementation: str | None, capability: int, reads_pages: bool
) -> None:
    kernel = VarlenKernel(implementation, capability, Called(version))
    assert kernel.reads_pages is reads_pages
