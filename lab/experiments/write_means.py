"""The number that decides which way a rank-one safety injection pushes: mean(y) of each matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lab.corpus import Kind
from steering.directions import Direction
from steering.sites import SitePoint

from .estimate import Estimate
from .pushes import WRITE_SITES
from .subject import Subject

__all__ = ["KINDS", "WriteMeans"]

KINDS: Final[tuple[Kind, ...]] = ("restricted_direct", "restricted_framed", "ordinary")
"""Prompts it is read on."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Outputs:
    """What one matrix puts out.

    Attributes:
        last: [N, d] on the last prompt token of each prompt.
        per_prompt: [N] mean(y) over the tokens of each prompt, the first left out.
    """

    last: _Floats
    per_prompt: _Floats


class WriteMeans:
    """mean(y) of every write matrix on training prompts.

    ROSI's edit moves y by alpha mean(y) s: its sign is that of mean(y), token by token.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.points = [SitePoint(i, s) for s in WRITE_SITES for i in subject.every_layer]
        self._outputs = cache(self._read)

    def signs(self) -> dict[SitePoint, float]:
        """sign(E[mean(y)]) on the last token of restricted framed prompts, by matrix."""
        found = self._outputs("restricted_framed")
        return {p: 1.0 if found[p].last.mean() >= 0 else -1.0 for p in self.points}

    def average_signs(self) -> dict[SitePoint, float]:
        """sign(E[mean(y)]) over all tokens of restricted framed prompts but the first."""
        found = self._outputs("restricted_framed")
        return {p: 1.0 if found[p].per_prompt.mean() >= 0 else -1.0 for p in self.points}

    def expected(self, alpha: float) -> dict[SitePoint, float]:
        """alpha E[mean(y)] on restricted framed prompts: the constant part of the edit."""
        found = self._outputs("restricted_framed")
        return {p: alpha * float(found[p].last.mean()) for p in self.points}

    def along(self, direction: Direction, alpha: float) -> dict[SitePoint, float]:
        """|alpha| E|y . s| there: how far the amplifying edit moves an output on average."""
        vector = direction.at(direction.layers[0])["vector"].double().numpy()
        unit = vector / np.linalg.norm(vector)
        found = self._outputs("restricted_framed")
        return {p: abs(alpha) * float(np.abs(found[p].last @ unit).mean()) for p in self.points}

    def table(self) -> list[dict[str, Any]]:
        """JSON, a row for each matrix: on the last prompt token, and over all tokens."""
        signs = self.signs()
        return [
            {
                "site": point.site.value,
                "layer": point.layer,
                "sign": signs[point],
                "last_token": {
                    kind: Estimate.mean(self._outputs(kind)[point].last.mean(axis=1)).to_dict()
                    for kind in KINDS
                },
                "all_tokens": {
                    kind: Estimate.mean(self._outputs(kind)[point].per_prompt).to_dict()
                    for kind in KINDS
                },
            }
            for point in self.points
        ]

    def _read(self, kind: Kind) -> Mapping[SitePoint, _Outputs]:
        asked = self._subject.training(kind)
        read = self._subject.laboratory.sequences(asked, self.points)
        return {
            point: _Outputs(
                np.array([rows[-1].double().numpy() for rows in read[point]]),
                # the first token is the same in every prompt and takes up surplus attention
                np.array([float(rows[1:].double().mean()) for rows in read[point]]),
            )
            for point in self.points
        }
