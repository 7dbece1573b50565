"""Threads for what jobs compute beside the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")


class JobThreads:
    """A thread for each job that runs; what it calls uses few torch and BLAS threads.

    Args:
        num_workers: Jobs that run at once.
        num_threads: Threads that one operation of torch, numpy or scipy may use.
    """

    def __init__(self, num_workers: int, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_workers, "coxswain-job", _limit, (num_threads,))

    async def run(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Return what `function` returns, called in one of these threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Begin no more calls; those that run go on to their end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _limit(num_threads: int) -> None:
    """Bound the threads of libraries, for this thread where that is possible.

    OpenMP counts threads for each thread; OpenBLAS for the process, which touches numpy and scipy
    alone: torch, and so the engine, has a BLAS of its own.
    """
    import scipy.linalg  # noqa: F401  # its BLAS can be bounded only once it is loaded
    from threadpoolctl import ThreadpoolController

    torch.set_num_threads(num_threads)
    own = Path(torch.__file__).parent
    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "openmp" or own not in Path(library.filepath).parents:
            library.set_num_threads(num_threads)
