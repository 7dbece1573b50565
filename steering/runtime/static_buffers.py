"""Arrays that a captured step reads: written on the host, copied to the device all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT: Final = 64  # bytes; of every array, so that any kernel may read it


class Field(NamedTuple):
    """Shape and numpy type of one array."""

    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def num_bytes(self) -> int:
        """Its size, without alignment."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class StaticBuffers:
    """Named arrays at addresses that never change, one copy on the host and one on the device.

    What is written to `host` reaches `tensors` by `upload`, in one copy that is ordered before the
    kernels that follow and that nobody waits for. So the host may write again only after the
    device has done the step; the engine reads each step's tokens back, which waits for that.

    Attributes:
        host: Arrays to write to, by name; zero at first.
        tensors: The same on the device; to be read only.
        storage: The memory behind `tensors`, [bytes] uint8.
    """

    def __init__(self, fields: Mapping[str, Field], device: torch.device) -> None:
        """Lay out `fields`, one after the other."""
        offsets, size = {}, 0
        for name, field in fields.items():
            offsets[name] = size
            size += -(-field.num_bytes // _ALIGNMENT) * _ALIGNMENT
        self.storage = torch.zeros(size, dtype=torch.uint8, device=device)
        self._staged = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.host: dict[str, NDArray[Any]] = {}
        self.tensors: dict[str, Tensor] = {}
        for name, field in fields.items():
            span = slice(offsets[name], offsets[name] + field.num_bytes)
            array = self._staged[span].numpy().view(field.dtype).reshape(field.shape)
            self.host[name] = array
            dtype = torch.from_numpy(np.empty(0, field.dtype)).dtype
            self.tensors[name] = self.storage[span].view(dtype).view(field.shape)

    def upload(self) -> None:
        """Copy what the host wrote; does not wait for the device."""
        self.storage.copy_(self._staged, non_blocking=True)
