"""Operations: each compiles an intervention and its direction's tensors to an `Edit`."""

from __future__ import annotations

from .compile import OPERATION_KINDS, compile_edit
from .edit import Edit, EditForm, OperationContext

__all__ = ["OPERATION_KINDS", "Edit", "EditForm", "OperationContext", "compile_edit"]
