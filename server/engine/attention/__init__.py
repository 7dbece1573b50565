"""Attention over a paged cache, for models that dispatch through transformers' interface."""

from .inspection import inspect_attention
from .paged_attention import PagedAttention
from .schedule import ScheduledSequence
from .spec import AttentionSpec

__all__ = ["AttentionSpec", "PagedAttention", "ScheduledSequence", "inspect_attention"]
