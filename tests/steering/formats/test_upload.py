from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import DirectionKind
from steering.errors import FormatError, InvalidFieldError, UnsafeFormatError
from steering.formats import load_upload, write_safetensors
from steering.sites import Site

from .files import control_vector

CONTROL_VECTOR = control_vector({f"direction.{i}": np.ones(3, dtype=np.float32) for i in (1, 2)})
SAFETENSORS = write_safetensors({"vector": torch.ones(3)}, {})


def test_formats_are_told_apart_by_their_first_bytes() -> None:
    foreign = load_upload(
        CONTROL_VECTOR, "v", requires=["restricted"], provenance={"by": "x"}, tags=["t"]
    )
    assert foreign.layers == (1, 2)
    assert (foreign.requires, foreign.tags) == (("restricted",), ("t",))
    assert foreign.provenance["by"] == "x"
    assert foreign.provenance["source_format"] == "gguf"
    native = load_upload(
        SAFETENSORS, "v", kind=DirectionKind.VECTOR, site=Site.EMBED, layers=[0], tags=["t"]
    )
    assert (native.site, native.layers, native.tags) == (Site.EMBED, (0,), ("t",))


def test_what_is_said_of_a_control_vector_may_agree() -> None:
    agreed = load_upload(
        CONTROL_VECTOR, "v", kind=DirectionKind.VECTOR, site=Site.RESID_POST, layers=[1, 2]
    )
    assert agreed.digest == load_upload(CONTROL_VECTOR, "v").digest


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", DirectionKind.BASIS), ("site", Site.RESID_PRE), ("layers", [0, 1])],
)
def test_what_is_said_of_a_control_vector_may_not_disagree(field: str, value: Any) -> None:
    with pytest.raises(InvalidFieldError, match=f"{field} disagrees") as caught:
        load_upload(CONTROL_VECTOR, "v", **{field: value})
    assert caught.value.param == field


def test_anything_else_is_refused() -> None:
    with pytest.raises(UnsafeFormatError):
        load_upload(b"PK\x03\x04" + bytes(30), "v")
    with pytest.raises(FormatError):
        load_upload(b"\x1f\x8b" + bytes(30), "v")
