"""Capture and replay of what a callable has the device do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

_WARM_UP_RUNS: Final = 2  # the first compiles kernels and takes workspaces, the second shows it did


class Graph(Protocol):
    """The work of one captured run, at the addresses it had then."""

    @property
    def num_bytes(self) -> int:
        """Memory of the device that only this graph keeps."""
        ...

    def replay(self) -> None:
        """Do the work again; does not wait for the device.

        What the captured run made lies where it made it, until any graph is replayed.
        """
        ...


class GraphBackend(Protocol):
    """A way to capture runs; used from the engine's thread alone."""

    def capture(self, run: Callable[[], None], reads: Sequence[Tensor]) -> Graph:
        """Run once or more, and keep what the last run had the device do.

        Args:
            run: Does the same work in every call, and whatever it does twice it does once. It may
                not read back, wait, or take shapes or numbers from what tensors hold.
            reads: What it reads beside the model and its cache: at these addresses in every
                replay, so the graph keeps them.

        Returns:
            The graph, which has yet to be replayed: capturing itself need not do the work.

        Raises:
            RuntimeError: The run did what cannot be captured, or memory is short.
        """
        ...


class CudaGraphs:
    """CUDA graphs that share one pool of memory, for one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(self, run: Callable[[], None], reads: Sequence[Tensor]) -> Graph:
        """See `GraphBackend`. Warms up on a stream of its own, and waits for the device."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                run()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        before = torch.cuda.memory_reserved(self._device)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: jobs that fit, the store's uploads.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            run()
        taken = torch.cuda.memory_reserved(self._device) - before
        return _CudaGraph(graph, tuple(reads), max(taken, 0))


class _CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, reads: tuple[Tensor, ...], taken: int) -> None:
        self._graph = graph
        self._reads = reads
        self.num_bytes = taken

    def replay(self) -> None:
        self._graph.replay()
