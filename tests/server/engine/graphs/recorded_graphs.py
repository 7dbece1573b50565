"""CUDA graphs emulated on the CPU: the calls of one run, replayed on the very same memory.

A CUDA graph keeps kernels, addresses and constants. So does this: it records every aten call of a
run with its tensors by identity and its other arguments by value, and refuses what a capture
refuses (to read back, shapes that hang on data, tensors from nowhere). A replay makes the same
calls again on the same memory and runs no Python of the model. Before it, everything that the run
made is poisoned, as the memory of a graph belongs to whoever replays next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from server.engine.attention import PagedAttention

__all__ = ["CannotBeCapturedError", "RecordedGraph", "RecordedGraphs"]

# Of these the result or its shape is read by the host.
_WAITS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_consecutive",
)


class CannotBeCapturedError(RuntimeError):
    """The run did what a CUDA graph cannot hold, or would hold wrongly."""


@dataclass(frozen=True, eq=False)
class _Call:
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: tuple[Tensor | None, ...]  # by output; None where it lies in the memory of an argument

    def replay(self) -> None:
        outputs = tree_leaves(self.func(*self.args, **self.kwargs))
        for output, made in zip(outputs, self.made, strict=True):
            if made is not None:
                made.copy_(output)


class _Recorder(TorchDispatchMode):
    """Records the calls of one run.

    Args:
        known: Memory that the run may read: what stays where it is.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.made: list[Tensor] = []
        self._known = set(known)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._check(func, args, kwargs)
        taken = {_memory(t) for t in _tensors((args, kwargs))}
        outputs = func(*args, **kwargs)
        made: list[Tensor | None] = []
        for output in tree_leaves(outputs):
            is_new = isinstance(output, Tensor) and _memory(output) not in taken
            made.append(output if is_new else None)
            if is_new:
                self._known.add(_memory(output))
                self.made.append(output)
        if _computes(func, made):
            self.calls.append(_Call(func, tuple(args), kwargs, tuple(made)))
        return outputs

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        name = func.name().removeprefix("aten::").split(".")[0]
        if name in _WAITS:
            raise CannotBeCapturedError(f"{name} waits for the device")
        if name == "index" and any(
            t.dtype in (torch.bool, torch.uint8) for t in args[1] if t is not None
        ):
            raise CannotBeCapturedError("a mask as index gives a shape that hangs on data")
        if name == "repeat_interleave" and isinstance(args[-1], Tensor):
            raise CannotBeCapturedError("repeats as a tensor give a shape that hangs on data")
        for tensor in _tensors((args, kwargs)):
            # A number as a tensor is passed to a kernel by value, like any number.
            if tensor.dim() and tensor.numel() and _memory(tensor) not in self._known:
                raise CannotBeCapturedError(
                    f"{name} reads a tensor {list(tensor.shape)} that is neither the model's, nor "
                    "static, nor made in this run: a replay would read what lay there then"
                )


@dataclass(eq=False)
class RecordedGraph:
    """The calls of one run, and what the run made."""

    calls: list[_Call]
    made: list[Tensor]
    reads: tuple[Tensor, ...]
    num_replays: int = field(default=0)
    num_bytes: int = field(default=1000)

    @torch.inference_mode()
    def replay(self) -> None:
        """Poison what the run made, and make the same calls again."""
        self.num_replays += 1
        for tensor in self.made:
            _poison(tensor)
        for call in self.calls:
            call.replay()


class RecordedGraphs:
    """A `GraphBackend` for the CPU.

    Attributes:
        graphs: All that were captured.
    """

    def __init__(self, model: nn.Module, attention: PagedAttention) -> None:
        self._lasting = [*_tensors_of(model)]
        for cache in attention.caches:
            self._lasting += [cache.keys, cache.values]
        self.graphs: list[RecordedGraph] = []

    def capture(self, run: Callable[[], None], reads: Sequence[Tensor]) -> RecordedGraph:
        """Warm up as CUDA does, then record."""
        run()
        recorder = _Recorder({_memory(t) for t in (*self._lasting, *reads) if t.numel()})
        with recorder:
            run()
        graph = RecordedGraph(recorder.calls, recorder.made, tuple(reads))
        self.graphs.append(graph)
        return graph


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _computes(func: Any, made: Sequence[Tensor | None]) -> bool:
    """Whether a call does work, rather than look at memory in another way or ask for some."""
    if func.name().removeprefix("aten::").split(".")[0] in ("empty", "new_empty", "empty_like"):
        return False
    return func._schema.is_mutable or any(each is not None for each in made)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _poison(tensor: Tensor) -> None:
    if tensor.dtype.is_floating_point:
        tensor.fill_(torch.nan)
    elif tensor.dtype is not torch.bool:
        tensor.fill_(torch.iinfo(tensor.dtype).max)
