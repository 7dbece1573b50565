"""Reading data files: a suite's own, public sets of prompts, and answers that people labelled."""

from __future__ import annotations

from .items import Item, read_items
from .labelled import LabelledAnswer, read_labelled
from .public_sets import PUBLIC_FORMATS

__all__ = ["PUBLIC_FORMATS", "Item", "LabelledAnswer", "read_items", "read_labelled"]
