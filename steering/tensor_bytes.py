"""A tensor's numbers as bytes, for hashing and for files."""

from __future__ import annotations

import torch
from torch import Tensor


def tensor_bytes(tensor: Tensor) -> bytes:
    """The elements of `tensor`, rows first, each as its dtype is stored; of any layout or device.

    numpy has no bfloat16, hence the view as bytes; a single element may be called contiguous with
    a stride that the view refuses, hence the clone.
    """
    flat = tensor.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().tobytes()
