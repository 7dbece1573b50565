from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from steering.directions import Direction, DirectionKind
from steering.errors import (
    FormatError,
    InvalidFieldError,
    ShapeMismatchError,
    SteeringError,
    UnsafeFormatError,
    UnsupportedDtypeError,
)
from steering.formats import load_npz
from steering.sites import Site

BASIS = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


def saved(*, packed: bool = False, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays)
    return stream.getvalue()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return stream.getvalue()


def array_file(shape: tuple[int, ...], descr: str = "<f4", body: bytes = b"") -> bytes:
    stream = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": descr}
    npy.write_array_header_1_0(stream, header)
    return stream.getvalue() + body


def loaded(data: bytes, kind: DirectionKind = DirectionKind.BASIS) -> Direction:
    return load_npz(data, "v", kind=kind, site=Site.RESID_POST, layers=[1])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "array", [BASIS, np.asfortranarray(BASIS), BASIS.astype(np.float16)], ids=["C", "F", "half"]
)
def test_archives_of_numpy_are_read(packed: bool, array: np.ndarray) -> None:
    direction = loaded(saved(packed=packed, basis=array))
    assert direction.tensors["basis"].tolist() == BASIS.tolist()
    assert direction.tensors["basis"].dtype == torch.from_numpy(array).dtype
    assert direction.provenance == {"source_format": "npz"}


def test_objects_are_never_unpickled() -> None:
    class Explosive:
        def __reduce__(self) -> Any:
            return pytest.fail, ("unpickled",)

    data = saved(basis=np.array([[Explosive()]], dtype=object))
    with pytest.raises(UnsafeFormatError, match="unpickling"):
        loaded(data)
    with pytest.raises(FormatError, match="not a numpy array"):
        loaded(archive({"basis.npy": pickle.dumps([1.0])}))


def test_what_unpacks_beyond_the_bound_is_refused_before_it_is_unpacked() -> None:
    arrays = {f"basis.{i}": np.full((1, 600), 0.5, np.float32) for i in (1, 2)}
    data = saved(packed=True, **arrays)
    assert len(data) < 2_000
    place = {"kind": DirectionKind.BASIS, "site": Site.RESID_POST, "layers": [1, 2]}
    assert load_npz(data, "v", **place, max_bytes=4_800).width == 600  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"basis\.2 needs 2400 bytes; expected at most 2399"):
        load_npz(data, "v", **place, max_bytes=4_799)  # type: ignore[arg-type]


BAD = {
    "not a zip": (b"abc", FormatError),
    "truncated": (saved(basis=BASIS)[:-30], FormatError),
    "damaged": (saved(basis=BASIS).replace(BASIS.tobytes(), BASIS.tobytes()[::-1]), FormatError),
    "no arrays": (archive({}), FormatError),
    "no suffix": (archive({"basis": array_file((1, 1), body=bytes(4))}), FormatError),
    "path": (archive({"../x.npy": array_file((1,), body=bytes(4))}), InvalidFieldError),
    "unknown method": (
        archive({"basis.npy": array_file((1, 1), body=bytes(4))}, zipfile.ZIP_BZIP2),
        FormatError,
    ),
    "short body": (archive({"basis.npy": array_file((1, 2), body=bytes(4))}), FormatError),
    "long body": (archive({"basis.npy": array_file((1, 2), body=bytes(12))}), FormatError),
    "claims terabytes": (archive({"basis.npy": array_file((2**20, 2**20))}), FormatError),
    "rank 3": (saved(basis=np.ones((1, 1, 1), np.float32)), ShapeMismatchError),
    "empty": (saved(basis=np.ones((0, 3), np.float32)), ShapeMismatchError),
    "float64": (saved(basis=BASIS.astype(np.float64)), UnsupportedDtypeError),
    "big endian": (saved(basis=BASIS.astype(">f4")), UnsupportedDtypeError),
    "record": (saved(basis=np.zeros(1, dtype=[("a", "<f4")])), UnsupportedDtypeError),
    "wrong name": (saved(bases=BASIS), InvalidFieldError),
}


@pytest.mark.parametrize(("data", "error"), BAD.values(), ids=BAD)
def test_bad_archives(data: bytes, error: type[SteeringError]) -> None:
    with pytest.raises(error):
        loaded(data)


def test_one_name_twice() -> None:
    member = array_file((1, 1), body=bytes(4))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("basis.npy", member)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("basis.npy", member)
    with pytest.raises(FormatError, match="twice"):
        loaded(stream.getvalue())


def test_encrypted_members_are_format_errors() -> None:
    data = bytearray(saved(basis=BASIS))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    with pytest.raises(FormatError, match="not a valid npz"):
        loaded(bytes(data))
