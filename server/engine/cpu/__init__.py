"""What the CPU does its own way: packed weights, and blocks run without their modules."""

from __future__ import annotations

from .fused_block import fuse_blocks
from .linear_product import LinearProduct, has_float16_products
from .packing import (
    linear_weight_bytes,
    measure_float16_rows,
    pack_linear,
    packs_when_free,
    use_float16,
)

__all__ = [
    "LinearProduct",
    "fuse_blocks",
    "has_float16_products",
    "linear_weight_bytes",
    "measure_float16_rows",
    "pack_linear",
    "packs_when_free",
    "use_float16",
]
