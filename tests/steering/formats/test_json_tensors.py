from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.errors import FormatError, SteeringError, UnsupportedDtypeError
from steering.formats import FileBounds, tensors_from_json, tensors_to_json


def packed(array: np.ndarray, dtype: Any = "F32", **changes: Any) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": dtype, "shape": list(array.shape), "data": data, **changes}


ONES = np.ones((2, 3), dtype=np.float32)


def test_base64_and_lists_give_the_same_tensor() -> None:
    tensors = tensors_from_json({"a": packed(ONES), "b": ONES.tolist()})
    assert torch.equal(tensors["a"], tensors["b"])
    assert tensors["b"].dtype == torch.float32
    assert tensors_from_json({"v": [1, 2.5]})["v"].tolist() == [1.0, 2.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), rows=st.integers(0, 3))
def test_round_trip_is_exact(dtype: torch.dtype, seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn((rows, 4) if rows else (4,), generator=generator).to(dtype)
    document = json.loads(json.dumps(tensors_to_json({"x": tensor})))
    read = tensors_from_json(document)["x"]
    assert read.dtype == dtype
    assert torch.equal(read, tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_are_read_as_numpy_and_torch_spell_them_too(dtype: torch.dtype) -> None:
    written = tensors_to_json({"v": torch.ones(3, dtype=dtype)})["v"]
    name = str(dtype).removeprefix("torch.")
    read = tensors_from_json({"v": {**written, "dtype": name}})["v"]
    assert read.dtype == dtype
    assert torch.equal(read, torch.ones(3, dtype=dtype))


def test_the_rank_of_nested_lists_is_that_of_the_tensor() -> None:
    read = tensors_from_json({"v": [1, 2.5], "m": [[1, 2], [3, 4], [5, 6]]})
    assert {name: list(tensor.shape) for name, tensor in read.items()} == {"v": [2], "m": [3, 2]}


def test_other_dtypes_are_not_written() -> None:
    with pytest.raises(UnsupportedDtypeError, match="int64") as caught:
        tensors_to_json({"x": torch.arange(3)})
    assert caught.value.param == "tensors.x"


BAD = {
    "not an object": ([1.0], "invalid_field", "tensors"),
    "no tensors": ({}, "invalid_field", "tensors"),
    "name": ({"../x": [1.0]}, "invalid_field", "tensors"),
    "dtype F64": ({"v": packed(ONES, "F64")}, "unsupported_dtype", "tensors.v.dtype"),
    "dtype list": ({"v": packed(ONES, ["F32"])}, "unsupported_dtype", "tensors.v.dtype"),
    "no dtype": ({"v": packed(ONES, None)}, "invalid_field", "tensors.v.dtype"),
    "unknown field": ({"v": packed(ONES, x=1)}, "invalid_field", "tensors.v.x"),
    "shape string": ({"v": packed(ONES, shape="6")}, "invalid_field", "tensors.v.shape"),
    "shape float": ({"v": packed(ONES, shape=[6.0])}, "invalid_field", "tensors.v.shape"),
    "shape negative": ({"v": packed(ONES, shape=[-2, -3])}, "shape_mismatch", "tensors.v.shape"),
    "shape empty": ({"v": packed(ONES, shape=[])}, "shape_mismatch", "tensors.v.shape"),
    "shape zero": ({"v": packed(ONES, shape=[0])}, "shape_mismatch", "tensors.v.shape"),
    "shape rank 3": ({"v": packed(ONES, shape=[1, 2, 3])}, "shape_mismatch", "tensors.v.shape"),
    "too few bytes": ({"v": packed(ONES, shape=[7])}, "shape_mismatch", "tensors.v.data"),
    "huge shape": ({"v": packed(ONES, shape=[2**62, 2**62])}, "shape_mismatch", "tensors.v.data"),
    "data number": ({"v": packed(ONES, data=5)}, "invalid_field", "tensors.v.data"),
    "data not base64": ({"v": packed(ONES, data="!!!!")}, "invalid_format", "tensors.v.data"),
    "data padding": ({"v": packed(ONES, data="AAA")}, "invalid_format", "tensors.v.data"),
    "data not ascii": ({"v": packed(ONES, data="ÄÖ")}, "invalid_format", "tensors.v.data"),
    "bytes not finite": ({"v": packed(ONES * np.inf)}, "non_finite", "tensors.v"),
    "number": ({"v": 1.0}, "invalid_field", "tensors.v"),
    "string": ({"v": "1 2"}, "invalid_field", "tensors.v"),
    "empty list": ({"v": []}, "invalid_field", "tensors.v"),
    "empty rows": ({"v": [[]]}, "shape_mismatch", "tensors.v"),
    "ragged": ({"v": [[1.0], [1.0, 2.0]]}, "shape_mismatch", "tensors.v"),
    "mixed": ({"v": [[1.0], 2.0]}, "shape_mismatch", "tensors.v"),
    "too deep": ({"v": [[[1.0]]]}, "invalid_field", "tensors.v"),
    "boolean": ({"v": [True]}, "invalid_field", "tensors.v"),
    "text inside": ({"v": [1.0, "2"]}, "invalid_field", "tensors.v"),
    "nan": ({"v": [float("nan")]}, "non_finite", "tensors.v"),
    "beyond float32": ({"v": [1e39]}, "non_finite", "tensors.v"),
    "beyond float64": ({"v": [10**400]}, "non_finite", "tensors.v"),
}


def test_a_strangers_document_has_no_more_tensors_than_its_bounds() -> None:
    document = {f"t{i}": [1.0] for i in range(3)}
    assert len(tensors_from_json(document, FileBounds(max_tensors=3))) == 3
    with pytest.raises(FormatError, match="3 tensors; expected 1 to 2") as caught:
        tensors_from_json(document, FileBounds(max_tensors=2))
    assert caught.value.param == "tensors"


@pytest.mark.parametrize(("document", "code", "param"), BAD.values(), ids=BAD)
def test_bad_documents_name_the_field(document: Any, code: str, param: str) -> None:
    with pytest.raises(SteeringError) as caught:
        tensors_from_json(document)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert len(str(caught.value)) < 400
