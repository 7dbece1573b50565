"""Attention over a paged cache, for models that dispatch through transformers' interface."""

from .inspection import inspect_attention
from .paged_attention import PagedAttention
from .schedule import ScheduledSequence
from .spec import AttentionSpec
from .static_step import StaticAttention, StaticSize
from .varlen_kernel import activate_flash_attention

__all__ = [
    "AttentionSpec",
    "PagedAttention",
    "ScheduledSequence",
    "StaticAttention",
    "StaticSize",
    "activate_flash_attention",
    "inspect_attention",
]
