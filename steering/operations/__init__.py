"""Operations: each compiles an intervention and its direction's tensors to an `Edit`."""

from __future__ import annotations

from .compile import OPERATION_KINDS, compile_edit
from .context import OperationContext

__all__ = ["OPERATION_KINDS", "OperationContext", "compile_edit"]
