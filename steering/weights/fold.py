"""Interventions folded into weights: which can be, and the arithmetic that does it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from steering.documents import CONSTANT, Intervention, Tokens
from steering.operations import Edit, EditForm
from steering.plan import SteeringPlan
from steering.sites import Site, SitePoint

from .errors import NotFoldableError

_BLOCK_ITEMS: Final = 2**22

WRITE_SITES: Final = (Site.ATTN_OUT, Site.MLP_OUT, Site.EMBED)
"""Sites whose activation is the output of a write matrix."""


def column_blocks(matrix: Tensor) -> Iterator[Tensor]:
    """Views of whole columns: of [d_out, d_in], or of each [d_out, d_in] of a stack."""
    for part in matrix.unbind(0) if matrix.ndim == 3 else (matrix,):
        yield from torch.split(part, max(1, _BLOCK_ITEMS // part.shape[0]), dim=-1)


@dataclass(frozen=True, eq=False, slots=True)
class GainedEdit:
    """An edit and the gain it has on every token."""

    edit: Edit
    gain: float


def is_affine(edit: Edit) -> bool:
    """Whether y' is an affine function of y, the same for every token."""
    is_linear = edit.response is None or not bool(edit.response.clip.any())
    return edit.form is not EditForm.TURN and is_linear and not edit.restore_norm


def needs_bias(edit: Edit) -> bool:
    """Whether it moves y = 0, which a weight alone cannot do."""
    return bool(_constant(edit).any())


def fold_weight(weight: Tensor, edits: Sequence[GainedEdit]) -> Tensor:
    """W' of y' = W' x + c' where y = W x + c and edits act on y one after the other.

        low rank  W' = W + g C^T phi (V W)
        diagonal  W' = W + g delta * W

    Args:
        weight: W [..., d, n], any columns of a weight, of any float dtype.
        edits: Affine, in order.

    Returns:
        W' in float64, a new tensor.
    """
    folded = weight.to(torch.float64, copy=True)
    for item in edits:
        folded += item.gain * _linear(item.edit, folded)
    return folded


def fold_bias(bias: Tensor, edits: Sequence[GainedEdit]) -> Tensor:
    """c' [d] in float64: the edits act on the bias as on any output, constant terms included.

    For rank-one injection the constant term takes out mean(c), so that c' = c.
    """
    folded = bias.to(torch.float64, copy=True)
    for item in edits:
        constant = _constant(item.edit)
        folded += item.gain * (_linear(item.edit, folded[:, None])[:, 0] + constant)
    return folded


def _linear(edit: Edit, columns: Tensor) -> Tensor:
    if edit.scale is not None:
        return edit.scale.to(torch.float64)[:, None] * columns
    if edit.read is None or edit.write is None or edit.response is None:
        return torch.zeros_like(columns)
    projections = edit.response.linear.to(torch.float64)[:, None] * (
        edit.read.to(torch.float64) @ columns
    )
    return edit.write.to(torch.float64).mT @ projections


def _constant(edit: Edit) -> Tensor:
    """What is added to y = 0 at gain 1: float64 [d], or a zero."""
    constant = torch.zeros((), dtype=torch.float64)
    if edit.shift is not None:
        constant = constant + edit.shift.to(torch.float64)
    if edit.offset is not None and edit.write is not None and edit.response is not None:
        scaled = edit.response.linear.to(torch.float64) * edit.offset.to(torch.float64)
        constant = constant - scaled @ edit.write.to(torch.float64)
    return constant


def check_foldable(asked: Intervention, site: Site, *, path: str = "") -> None:
    """Refuse what a weight cannot know: which token it is, what other activations were.

    Args:
        asked: The intervention.
        site: Its own, or that of its direction.
        path: Where it stands, for errors: `interventions[0].`.

    Raises:
        NotFoldableError: `param` names the field.
    """
    if site not in WRITE_SITES:
        _refuse(
            f"{path}site",
            site.value,
            f"no single weight writes; expected {', '.join(known.value for known in WRITE_SITES)}",
        )
    if Tokens.ALL not in asked.scope.tokens or not asked.scope.exclude.is_empty:
        _refuse(
            f"{path}scope", asked.scope.to_dict(), "a weight acts on every token; expected 'all'"
        )
    if asked.schedule != CONSTANT:
        _refuse(
            f"{path}schedule",
            asked.schedule.to_dict(),
            "a weight does not know how far an answer is",
        )
    if asked.gate is not None:
        _refuse(f"{path}gate", asked.gate.to_dict(), "a weight acts always")
    if asked.restore_norm:
        _refuse(f"{path}restore_norm", True, "the norm of an output is not linear in it")


def edits_by_point(
    plan: SteeringPlan, biased: Collection[SitePoint]
) -> Mapping[SitePoint, tuple[GainedEdit, ...]]:
    """The edits of a plan at each point, in order, with their gains.

    Args:
        plan: Of interventions that `check_foldable` accepts.
        biased: Points where one matrix with a bias gives the whole output.

    Raises:
        NotFoldableError: An edit is not affine, or moves y = 0 where there is no bias.
    """
    edits: dict[SitePoint, tuple[GainedEdit, ...]] = {}
    for index, item in enumerate(plan.interventions):
        path = f"interventions[{index}].operation"
        operation = item.intervention.operation.value
        for planned in item.edits:
            point = planned.point
            if not is_affine(planned.edit):
                _refuse(path, operation, "what it does is not linear in the output")
            if needs_bias(planned.edit) and point not in biased:
                _refuse(
                    path,
                    operation,
                    f"with these parameters it adds a constant, and no bias at "
                    f"{point.site.value!r} of layer {point.layer} could hold it",
                )
            gained = GainedEdit(planned.edit, item.strength)
            edits[point] = (*edits.get(point, ()), gained)
    return edits


def _refuse(field: str, got: object, reason: str) -> None:
    raise NotFoldableError(
        f"{field} is {got!r}, which no weight can stand for: {reason}. Serve it instead",
        param=field,
    )
