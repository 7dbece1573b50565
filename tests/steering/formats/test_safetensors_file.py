from __future__ import annotations

import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from steering.errors import (
    FormatError,
    InvalidFieldError,
    ShapeMismatchError,
    UnsafeFormatError,
    UnsupportedDtypeError,
)
from steering.formats import UPLOAD_BOUNDS, read_safetensors, write_safetensors

from .files import entry, safetensors

VECTOR = {"vector": entry([2])}
BODY = bytes(8)

UNREADABLE = {
    "empty": b"",
    "short": b"\x10",
    "no header": b"\x02" + bytes(7),
    "truncated": safetensors(VECTOR, BODY)[:-1],
    "header 2^63": safetensors(VECTOR, BODY, length=2**63),
    "header beyond file": safetensors(VECTOR, length=200),
    "bad json": safetensors(b'{"vector"'),
    "bad utf-8": safetensors(b'{"\xff": 1}'),
    "list": safetensors(b'{"a":1}'.replace(b'{"a":1}', b"[{}]    ")),
    "deep": safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "huge integer": safetensors(b'{"a":' + b"9" * 5_000 + b"}"),
    "not a number": safetensors(b'{"a": NaN}'),
    "no tensors": safetensors({}),
    "duplicate tensor": safetensors(
        b'{"vector":%s,"vector":%s}' % ((json.dumps(entry([2])).encode(),) * 2), BODY
    ),
    "duplicate dtype": safetensors(
        b'{"vector":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}', BODY
    ),
    "entry is a list": safetensors({"vector": [1]}, BODY),
    "unknown entry field": safetensors({"vector": {**entry([2]), "x": 1}}, BODY),
    "no offsets": safetensors({"vector": {"dtype": "F32", "shape": [2]}}, BODY),
    "negative offset": safetensors({"vector": {**entry([2]), "data_offsets": [-8, 0]}}, BODY),
    "three offsets": safetensors({"vector": {**entry([2]), "data_offsets": [0, 8, 8]}}, BODY),
    "boolean shape": safetensors({"vector": {**entry([2]), "shape": [True, 2]}}, BODY),
    "float shape": safetensors({"vector": {**entry([2]), "shape": [2.0]}}, BODY),
    "size mismatch": safetensors({"vector": entry([3], size=8)}, BODY),
    "shape overflow": safetensors({"vector": entry([1], size=4) | {"shape": [2**62, 4]}}, BODY),
    "hole": safetensors({"a": entry([1]), "b": entry([1], start=8)}, bytes(12)),
    "overlap": safetensors({"a": entry([2]), "b": entry([2], start=4)}, bytes(12)),
    "extra bytes": safetensors(VECTOR, bytes(12)),
    "metadata not strings": safetensors({"__metadata__": {"a": 1}, **VECTOR}, BODY),
    "metadata a list": safetensors({"__metadata__": ["a"], **VECTOR}, BODY),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_files_are_format_errors_about_the_file(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        read_safetensors(data)
    assert not isinstance(caught.value, UnsafeFormatError)
    assert caught.value.param == "file"
    assert caught.value.code == "invalid_format"
    assert len(str(caught.value)) < 500


BOUNDED = {
    "header": safetensors(json.dumps(VECTOR).encode() + b" " * 2**20, BODY),
    "tensors": safetensors({f"t{i}": entry([1], start=4 * i) for i in range(513)}, bytes(4 * 513)),
    "metadata": safetensors({"__metadata__": {"a": "x" * 70_000}, **VECTOR}, BODY),
}


@pytest.mark.parametrize("data", BOUNDED.values(), ids=BOUNDED)
def test_only_a_strangers_file_has_bounds(data: bytes) -> None:
    assert read_safetensors(data).tensors
    with pytest.raises(FormatError, match="expected") as caught:
        read_safetensors(data, UPLOAD_BOUNDS)
    assert caught.value.param == "file"


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"vector": [1.0]}),
        pickle.dumps({"vector": [1.0]}, protocol=2),
        b"PK\x03\x04" + bytes(40),
    ],
    ids=["pickle", "pickle 2", "zip"],
)
def test_pickles_and_archives_are_unsafe(data: bytes) -> None:
    with pytest.raises(UnsafeFormatError) as caught:
        read_safetensors(data)
    assert caught.value.code == "unsafe_format"
    assert "weights_only" in str(caught.value)


def test_header_whose_length_begins_like_a_pickle_is_still_read() -> None:
    header = json.dumps(VECTOR).encode()
    data = safetensors(header + b" " * (0x80 - len(header)), BODY)
    assert data.startswith(b"\x80")
    assert list(read_safetensors(data).tensors) == ["vector"]


@pytest.mark.parametrize("dtype", ["F64", "I64", "F8_E4M3"])
def test_other_dtypes_are_named(dtype: str) -> None:
    data = safetensors({"vector": entry([2], dtype=dtype)}, bytes(16))
    with pytest.raises(UnsupportedDtypeError, match=rf"vector has dtype '{dtype}'.*F32") as caught:
        read_safetensors(data)
    assert caught.value.param == "tensors.vector"


@pytest.mark.parametrize("shape", [[], [0], [0, 4], [1, 1, 2], [1] * 100, [0, 10**9]])
def test_only_vectors_and_matrices_with_numbers_in_them(shape: list[int]) -> None:
    with pytest.raises(ShapeMismatchError, match="one or two dimensions") as caught:
        read_safetensors(safetensors({"vector": entry(shape)}, bytes(8)))
    assert caught.value.param == "tensors.vector"


@pytest.mark.parametrize("name", ["", "../../x", "a/b", "a b", "\0", "ü", "x" * 129, "a\n"])
def test_tensor_names_are_labels(name: str) -> None:
    with pytest.raises(InvalidFieldError, match="a tensor is called"):
        read_safetensors(safetensors({name: entry([2])}, BODY))


tensors_strategy = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_.:-]{1,12}", fullmatch=True),
    st.builds(
        lambda seed, rows, dtype: torch.randn(
            (rows, 3) if rows else (3,), generator=torch.Generator().manual_seed(seed)
        ).to(dtype),
        st.integers(0, 99),
        st.integers(0, 3),
        st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=50)
@given(tensors_strategy, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_written_files_read_back_exactly_here_and_in_the_library(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    data = write_safetensors(tensors, metadata)
    ours, theirs = read_safetensors(data), load(data)
    assert ours.metadata == metadata
    assert set(ours.tensors) == set(theirs) == set(tensors)
    for name, tensor in tensors.items():
        assert ours.tensors[name].dtype == tensor.dtype
        assert torch.equal(ours.tensors[name], tensor)
        assert torch.equal(theirs[name], tensor)


def test_bytes_do_not_depend_on_the_order_of_tensors_or_metadata() -> None:
    a, b = torch.ones(2), torch.ones(3, dtype=torch.bfloat16)
    forward = write_safetensors({"a": a, "b": b}, {"x": "1", "y": "2"})
    backward = write_safetensors({"b": b, "a": a}, {"y": "2", "x": "1"})
    assert forward == backward
    assert (int.from_bytes(forward[:8], "little") + 8) % 8 == 0


def test_views_and_transposes_are_written_as_they_look() -> None:
    matrix = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(read_safetensors(write_safetensors({"m": matrix}, {})).tensors["m"], matrix)


def test_files_of_the_library_are_read() -> None:
    tensors = {"b": torch.ones(2, 2), "a": torch.zeros(3, dtype=torch.float16)}
    file = read_safetensors(save(tensors, metadata={"format": "pt"}))
    assert set(file.tensors) == {"a", "b"}
    assert file.metadata == {"format": "pt"}


def test_other_dtypes_are_not_written() -> None:
    with pytest.raises(UnsupportedDtypeError, match="float64"):
        write_safetensors({"v": torch.ones(2, dtype=torch.float64)}, {})
