"""Gives the linear maps of a model packed weights, and chooses which form serves which step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, takewhile
from typing import Any, Final

import torch
from torch import Tensor, nn

from steering.layout.layout import is_conv1d

from .linear_product import LinearProduct

_PACKABLE: Final = (torch.bfloat16, torch.float32)
_FREE_SHARE: Final = 4
_SIBLINGS: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Maps of one module that are given the same tensor."""

_LADDER: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of rows at which the forms are compared."""

_ROUNDS: Final = 3
_SAMPLE_BYTES: Final = 64 * 2**20
"""Weights that are timed: more than caches hold, as in a step, where each is read once."""


class JointProduct:
    """One product for maps that read the same tensor; each of them takes its own columns.

    The first map that is called computes it. A map that is called with another tensor, or a
    second time, computes it again, so the result is right whatever is called.
    """

    def __init__(self, product: LinearProduct, widths: Sequence[int]) -> None:
        """Take the product of all maps, whose results are `widths` wide and stand side by side."""
        self.product = product
        self._widths = list(widths)
        self._input: Tensor | None = None
        self._left: dict[int, Tensor] = {}  # columns by index, until they are taken

    def columns(self, index: int, x: Tensor) -> Tensor:
        """What the map with this index makes of x."""
        if x is not self._input or index not in self._left:
            self._input = x
            self._left = dict(enumerate(torch.split(self.product(x), self._widths, dim=-1)))
        taken = self._left.pop(index)
        if not self._left:
            self._input = None
        return taken


class _JointForward:
    """Stands in for the `forward` of one of the maps of a joint product."""

    def __init__(self, joint: JointProduct, index: int) -> None:
        self.joint = joint
        self._index = index

    def __call__(self, x: Tensor) -> Tensor:
        return self.joint.columns(self._index, x)


def packs_when_free(linear_bytes: int, free_bytes: int) -> int:
    """How many bytes are packed of what could be: all, where a quarter of the free memory holds it.

    Args:
        linear_bytes: Of the weights that can be packed, in all the forms they would have.
        free_bytes: Free once the model is loaded.
    """
    return linear_bytes if linear_bytes <= free_bytes // _FREE_SHARE else 0


def linear_weight_bytes(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Memory that `pack_linear` would take: that of the weights it copies, in a dtype or theirs."""
    weights = [module.weight for module in _packable(model)]
    return sum(weight.numel() * (dtype or weight.dtype).itemsize for weight in weights)


def pack_linear(model: nn.Module, *, in_float16: bool = False) -> list[LinearProduct]:
    """Give every linear map on the CPU a packed copy of its weight, and use it from now on.

    Maps that read the same tensor become one product. Modules keep their paths, parameters and
    hooks; only `forward` changes. A later change of a weight would not be seen.

    Args:
        model: On any devices.
        in_float16: Pack a float16 form beside the other; `use_float16` brings it into use.

    Returns:
        The products, in the order of the modules.
    """
    products = []
    for maps in _groups(model):
        weights = [m.weight.detach().t() if is_conv1d(m) else m.weight.detach() for m in maps]
        weight = weights[0].contiguous() if len(maps) == 1 else torch.cat(weights)
        product = LinearProduct(weight, _joint_bias(maps), in_float16=in_float16)
        products.append(product)
        if len(maps) == 1:
            maps[0].forward = product
            continue
        joint = JointProduct(product, [m.out_features for m in maps])
        for index, module in enumerate(maps):
            module.forward = _JointForward(joint, index)
    return products


def use_float16(products: Sequence[LinearProduct], max_rows: int) -> None:
    """Send steps of at most `max_rows` rows through the float16 forms; 0 frees these."""
    for product in products:
        if not max_rows:
            product.drop_float16()
        elif product.has_float16:
            product.max_float16_rows = max_rows


def product_of(module: nn.Module) -> LinearProduct | None:
    """The product that computes a map, with its siblings' where there are some."""
    forward = module.forward
    if isinstance(forward, _JointForward):
        return forward.joint.product
    return forward if isinstance(forward, LinearProduct) else None


def measure_float16_rows(
    products: Sequence[LinearProduct], clock: Callable[[], float] = time.process_time
) -> int:
    """Most rows at which the float16 form is the faster one, by a short measurement; 0 for none.

    Takes some tens of milliseconds for each number of rows. Those that have both forms are timed.
    """
    sample = _sample([product for product in products if product.has_float16])
    if not sample:
        return 0
    best = 0
    for rows in _LADDER:
        inputs = {p.num_inputs: torch.zeros(rows, p.num_inputs, dtype=p.dtype) for p in sample}
        in_float16 = in_own_dtype = float("inf")
        for _ in range(_ROUNDS):
            in_float16 = min(in_float16, _seconds(LinearProduct.by_float16, sample, inputs, clock))
            in_own_dtype = min(
                in_own_dtype, _seconds(LinearProduct.__call__, sample, inputs, clock)
            )
        if in_float16 >= in_own_dtype:
            break
        best = rows
    return best


def _sample(products: Sequence[LinearProduct]) -> list[LinearProduct]:
    sizes = accumulate(product.nbytes for product in products)
    return list(takewhile(lambda _: next(sizes) < _SAMPLE_BYTES, products)) or list(products[:1])


def _seconds(
    call: Callable[[LinearProduct, Tensor], Tensor],
    products: Sequence[LinearProduct],
    inputs: dict[int, Tensor],
    clock: Callable[[], float],
) -> float:
    begun_at = clock()
    for product in products:
        call(product, inputs[product.num_inputs])
    return clock() - begun_at


def _packable(model: nn.Module) -> list[Any]:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    return [
        module
        for module in model.modules()
        if (type(module) is nn.Linear or is_conv1d(module))
        and module.weight.device.type == "cpu"
        and module.weight.dtype in _PACKABLE
        and (module.weight.dtype is torch.float32 or _has_bfloat16())
    ]


def _groups(model: nn.Module) -> Iterator[list[Any]]:
    """Every packable map once, siblings together."""
    packable, done = set(_packable(model)), set[Any]()
    for parent in model.modules():  # parents come before what they contain
        for names in _SIBLINGS:
            maps = [getattr(parent, name, None) for name in names]
            if all(type(m) is nn.Linear and m in packable - done for m in maps) and (
                len({(m.in_features, m.weight.dtype) for m in maps if m is not None}) == 1
            ):
                done.update(maps)
                yield maps
        if parent in packable and parent not in done:
            done.add(parent)
            yield [parent]


def _joint_bias(maps: Sequence[Any]) -> Tensor | None:
    if all(m.bias is None for m in maps):
        return None
    zeros = [m.weight.new_zeros(m.weight.shape[0]) for m in maps if m.bias is None]
    biases = [zeros.pop(0) if m.bias is None else m.bias.detach() for m in maps]
    return torch.cat(biases)


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
