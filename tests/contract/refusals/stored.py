"""A case of the table, and what is stored before anything is asked."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .spoil import Place

__all__ = ["DIRECTIONS", "LAST", "SITES", "STORED", "Case", "as_base64", "axis", "direction"]

LAST: Final = 3
"""Last layer of the echo engine's model."""

WIDTH: Final = 8


@dataclass(frozen=True)
class Case:
    """A document and the request that carries it.

    Attributes:
        name: Of the table's rows.
        path: Of the request.
        document: What is spoiled; the request is accepted with it as it stands.
        method: Of the request.
        below: Only this part of the document is spoiled.
        skip: Fields that another case goes into.
        beside: Fields that are set to 1.0 one at a time: those of other operations, say.
        is_form: Whether the document is the `metadata` of a form with a file.
    """

    name: str
    path: str
    document: Mapping[str, Any]
    method: str = "POST"
    below: Place = ()
    skip: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    is_form: bool = False


def axis(index: int) -> list[float]:
    return [float(index == at) for at in range(WIDTH)]


def direction(name: str, kind: str, **tensors: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "site": "resid_post",
        "layers": [1],
        "model_fingerprint": "f" * 64,
        "requires": [],
        "provenance": {"method": "by hand"},
        "tags": ["made"],
        "tensors": tensors,
    }


def as_base64(values: list[float]) -> dict[str, Any]:
    data = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return {"dtype": "F32", "shape": [len(values)], "data": data}


DIRECTIONS: Final[dict[str, dict[str, Any]]] = {
    "vector": {"vector": axis(0), "reference": axis(1)},
    "basis": {"basis": [axis(0), axis(1)]},
    "transport": {
        "basis": [axis(0)],
        "offset": [0.5],
        "map": [axis(1)],
        "shift": axis(2),
    },
    "diagonal": {"scale": [1.0] * WIDTH, "shift": axis(0)},
    "plane": {"basis": [axis(0), axis(1)]},
    "heads": {"scale": [0.5, 1.0]},
    "probe": {"weight": axis(0), "bias": [0.25]},
}

SITES: Final = {"heads": "heads"}

STORED: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    *(
        (
            "directions",
            {**direction(f"a-{kind}", kind, **tensors), "site": SITES.get(kind, "resid_post")},
        )
        for kind, tensors in DIRECTIONS.items()
    ),
    (
        "directions",
        {
            **direction("end-probe", "probe", weight=axis(0), bias=[0.25]),
            "site": "final",
            "layers": [LAST],
        },
    ),
    ("directions", {**direction("attn-vector", "vector", vector=axis(0)), "site": "attn_out"}),
    (
        "profiles",
        {
            "name": "cheerful",
            "interventions": [{"operation": "add", "direction": "a-vector", "strength": 2.0}],
            "publish": True,
        },
    ),
)
"""What is there before anything is asked: (collection, document)."""
