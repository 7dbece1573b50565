"""The table of operations: which kinds of direction each takes and how it compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from steering.directions import DirectionKind
from steering.documents import Intervention, Operation
from steering.errors import IncompatibleOperationError, NonFiniteError

from .edit import Edit, OperationContext
from .maps import diagonal, rotate, rotate_to, scale_heads, transport
from .vector_ops import ablate, add, clamp, rank_one, set_projection

OPERATION_KINDS: Final[dict[Operation, tuple[DirectionKind, ...]]] = {
    Operation.ADD: (DirectionKind.VECTOR,),
    Operation.ABLATE: (DirectionKind.VECTOR, DirectionKind.BASIS, DirectionKind.PROBE),
    Operation.SET: (DirectionKind.VECTOR, DirectionKind.PROBE),
    Operation.CLAMP: (DirectionKind.VECTOR, DirectionKind.PROBE),
    Operation.TRANSPORT: (DirectionKind.TRANSPORT,),
    Operation.DIAGONAL: (DirectionKind.DIAGONAL,),
    Operation.ROTATE: (DirectionKind.PLANE,),
    Operation.ROTATE_TO: (DirectionKind.PLANE,),
    Operation.SCALE_HEADS: (DirectionKind.HEADS,),
    Operation.RANK_ONE: (DirectionKind.VECTOR,),
}
"""The kinds of direction that each operation accepts."""

_COMPILERS: Final[dict[Operation, Callable[[OperationContext[Any]], Edit]]] = {
    Operation.ADD: add,
    Operation.ABLATE: ablate,
    Operation.SET: set_projection,
    Operation.CLAMP: clamp,
    Operation.TRANSPORT: transport,
    Operation.DIAGONAL: diagonal,
    Operation.ROTATE: rotate,
    Operation.ROTATE_TO: rotate_to,
    Operation.SCALE_HEADS: scale_heads,
    Operation.RANK_ONE: rank_one,
}


def compile_edit(context: OperationContext[Intervention]) -> Edit:
    """The numeric form of one intervention at one point.

    Raises:
        IncompatibleOperationError: The operation cannot use this kind of direction.
        NonFiniteError: A parameter made a tensor overflow.
        SteeringError: What the operation itself refuses.
    """
    operation = context.intervention.operation
    kinds = OPERATION_KINDS[operation]
    if context.kind not in kinds:
        raise IncompatibleOperationError(
            f"direction {context.intervention.direction} is of kind {context.kind.value!r}; "
            f"{operation.value!r} expects {' or '.join(repr(kind.value) for kind in kinds)}",
            param="direction",
        )
    edit = _COMPILERS[operation](context)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in edit.tensors()):
        raise NonFiniteError(
            f"{operation.value!r} with these parameters overflows float32; use smaller ones",
            param="strength",
        )
    return edit
