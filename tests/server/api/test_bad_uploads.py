"""Uploads that must not become directions: the right answer to each, and nothing stored."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save

from server.app import create_app
from server.settings import Settings
from server.store import Store
from steering.directions import Direction, DirectionKind
from steering.formats import dump_control_vector
from steering.sites import Site
from tests.steering.formats.test_damaged_files import INTERNALS, damaged

from .conftest import connect, vector
from .echo_engine import EchoEngine

PATH = "/v1/steering/directions"
ROW = [1.0, 0, 0, 0, 0, 0, 0, 0]
METADATA = {"name": "up", "kind": "vector", "site": "resid_post", "layers": [1]}


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: Any = (8,), offsets: Any = (0, 32)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def tensor(*values: float, dtype: torch.dtype = torch.float32) -> bytes:
    return save({"vector": torch.tensor(values or ROW, dtype=dtype)})


def control_vector() -> bytes:
    direction = Direction(
        "x", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector.1": torch.tensor(ROW)}
    )
    return dump_control_vector(direction, model_hint="llama")


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    return buffer.getvalue()


ZEROS = bytes(32)
TWICE = b'{"vector":%b,"vector":%b}' % ((json.dumps(entry()).encode(),) * 2)

FILES: dict[str, tuple[bytes, int, str]] = {
    "pickle": (pickle.dumps([1.0] * 8), 400, "unsafe_format"),
    "torch zip": (zipped(), 400, "unsafe_format"),
    "gzip": (b"\x1f\x8b" + bytes(64), 400, "invalid_safetensors"),
    "nothing": (b"", 400, "invalid_safetensors"),
    "a few bytes": (b"abc", 400, "invalid_safetensors"),
    "truncated": (tensor()[:-4], 400, "invalid_safetensors"),
    "longer than it says": (tensor() + b"1234", 400, "invalid_safetensors"),
    "header of 2^63 bytes": (raw({}, length=2**63), 400, "invalid_safetensors"),
    "header beyond the file": (raw({}, length=1000), 400, "invalid_safetensors"),
    "header is no JSON": (raw(b"{]"), 400, "invalid_safetensors"),
    "header is no UTF-8": (raw(b'{"\xff":1}'), 400, "invalid_safetensors"),
    "header is a list": (raw([]), 400, "invalid_safetensors"),
    "header 200,000 deep": (raw(b"[" * 200_000), 400, "invalid_safetensors"),
    "a name twice": (raw(TWICE, ZEROS), 400, "invalid_safetensors"),
    "no tensors": (raw({}), 400, "invalid_safetensors"),
    "overlap": (
        raw({"vector": entry(), "reference": entry(offsets=(16, 48))}, bytes(48)),
        *(400, "invalid_safetensors"),
    ),
    "hole": (raw({"vector": entry(offsets=(8, 40))}, bytes(40)), 400, "invalid_safetensors"),
    "negative offset": (
        raw({"vector": entry(offsets=(-1, 31))}, ZEROS),
        400,
        "invalid_safetensors",
    ),
    "shape and size differ": (
        raw({"vector": entry(shape=(9,))}, ZEROS),
        400,
        "invalid_safetensors",
    ),
    "large metadata": (
        raw({"__metadata__": {"a": "x" * 70_000}, "vector": entry()}, ZEROS),
        *(400, "invalid_safetensors"),
    ),
    "metadata is no text": (
        raw({"__metadata__": {"a": 1}, "vector": entry()}, ZEROS),
        *(400, "invalid_safetensors"),
    ),
    "513 tensors": (
        raw(
            {f"t{i}": entry(shape=(1,), offsets=(4 * i, 4 * i + 4)) for i in range(513)},
            bytes(2052),
        ),
        *(400, "invalid_safetensors"),
    ),
    "a path as name": (raw({"../../x": entry()}, ZEROS), 422, "invalid_field"),
    "an empty name": (raw({"": entry()}, ZEROS), 422, "invalid_field"),
    "rank 3": (raw({"vector": entry(shape=(2, 2, 2))}, ZEROS), 422, "shape_mismatch"),
    "a zero dimension": (raw({"vector": entry(shape=(0,), offsets=(0, 0))}), 422, "shape_mismatch"),
    "F64": (raw({"vector": entry("F64", offsets=(0, 64))}, bytes(64)), 422, "unsupported_dtype"),
    "I64": (raw({"vector": entry("I64", offsets=(0, 64))}, bytes(64)), 422, "unsupported_dtype"),
    "F8": (raw({"vector": entry("F8_E4M3", offsets=(0, 8))}, bytes(8)), 422, "unsupported_dtype"),
    "unknown dtype": (raw({"vector": entry("X")}, ZEROS), 422, "unsupported_dtype"),
    "another tensor's name": (save({"v": torch.tensor(ROW)}), 422, "invalid_field"),
    "NaN": (tensor(float("nan"), *ROW[1:]), 422, "non_finite"),
    "infinity": (tensor(float("inf"), *ROW[1:]), 422, "non_finite"),
    "1e38": (tensor(1e38, *ROW[1:]), 422, "norm_too_large"),
    "zeros": (tensor(*[0.0] * 8), 422, "zero_vector"),
    "width 7": (tensor(*ROW[:7]), 422, "shape_mismatch"),
    "GGUF, cut": (control_vector()[:40], 400, "invalid_gguf"),
    "GGUF, version 99": (b"GGUF" + struct.pack("<I", 99) + bytes(64), 400, "invalid_gguf"),
    "GGUF, 2^63 tensors": (
        b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
        *(400, "invalid_gguf"),
    ),
}

DOCUMENTS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no name": ({"name": None}, 422, "invalid_field", "name"),
    "no tensors": ({"tensors": None}, 422, "invalid_field", "tensors"),
    "no kind": ({"kind": None}, 422, "invalid_field", "kind"),
    "unknown kind": ({"kind": "wave"}, 422, "invalid_field", "kind"),
    "unknown field": ({"colour": 1}, 422, "invalid_field", "colour"),
    "unknown site": ({"site": "nowhere"}, 422, "unknown_site", "site"),
    "absent site": ({"site": "resid_mid"}, 422, "site_unavailable", "site"),
    "layer 4 of 4": ({"layers": [4]}, 422, "layer_out_of_range", "layers"),
    "layer -1": ({"layers": [-1]}, 422, "layer_out_of_range", "layers"),
    "no layers": ({"layers": []}, 422, "layer_out_of_range", "layers"),
    "layers of text": ({"layers": ["1"]}, 422, "invalid_field", "layers"),
    "another model": (
        {"model_fingerprint": "e" * 64},
        422,
        "fingerprint_mismatch",
        "model_fingerprint",
    ),
    "tensors of text": ({"tensors": {"vector": ["1"] * 8}}, 422, "invalid_field", "tensors.vector"),
    "wrong width": ({"tensors": {"vector": [1.0] * 7}}, 422, "shape_mismatch", "tensors"),
    "zero": ({"tensors": {"vector": [0.0] * 8}}, 422, "zero_vector", "tensors.vector"),
    "too long": ({"tensors": {"vector": [1e7] * 8}}, 422, "norm_too_large", "tensors.vector"),
    "beyond float32": ({"tensors": {"vector": [1e39] * 8}}, 422, "non_finite", "tensors.vector"),
    "ragged": (
        {"kind": "basis", "tensors": {"basis": [ROW, [1.0]]}},
        422,
        "shape_mismatch",
        "tensors.basis",
    ),
    "base64 is none": (
        {"tensors": {"vector": {"dtype": "F32", "shape": [8], "data": "%%%"}}},
        *(400, "invalid_format", "tensors.vector.data"),
    ),
    "base64 too short": (
        {
            "tensors": {
                "vector": {
                    "dtype": "F32",
                    "shape": [8],
                    "data": base64.b64encode(bytes(4)).decode(),
                }
            }
        },
        *(422, "shape_mismatch", "tensors.vector.data"),
    ),
    "dtype F64": (
        {"tensors": {"vector": {"dtype": "F64", "shape": [8], "data": ""}}},
        *(422, "unsupported_dtype", "tensors.vector.dtype"),
    ),
    "unknown scope": ({"requires": ["root"]}, 422, "invalid_field", "requires[0]"),
    "provenance of text": ({"provenance": "me"}, 422, "invalid_field", "provenance"),
    "tag with a line break": ({"tags": ["a\rb"]}, 422, "invalid_field", "tags[0]"),
}


@pytest.mark.parametrize("name", FILES)
async def test_a_bad_file_is_refused(shared: httpx.AsyncClient, name: str) -> None:
    data, status, code = FILES[name]
    response = await upload(shared, data, METADATA)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    await assert_nothing_stored(shared)


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_bad_document_is_refused(shared: httpx.AsyncClient, name: str) -> None:
    fields, status, code, param = DOCUMENTS[name]
    response = await shared.post(PATH, json={**vector("up"), **fields})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error
    await assert_nothing_stored(shared)


async def test_a_form_needs_its_two_parts(shared: httpx.AsyncClient) -> None:
    text = json.dumps(METADATA)
    for files, data, code, param in (
        ({}, {"metadata": text}, "missing_required_parameter", "file"),
        ({"file": ("f", tensor())}, {}, "missing_required_parameter", "metadata"),
        ({"file": ("f", tensor())}, {"metadata": "{"}, "invalid_json", "metadata"),
        ({"other": ("f", tensor())}, {"metadata": text}, "unknown_parameter", "other"),
    ):
        files = files or {"file": (None, "text")}
        response = await shared.post(PATH, files=files, data=data)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, code, param), error


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\nbad\r\n\r\n", b"--x--"])
async def test_a_broken_form_is_refused(shared: httpx.AsyncClient, body: bytes) -> None:
    for boundary in ("; boundary=x", ""):
        headers = {"content-type": f"multipart/form-data{boundary}"}
        response = await shared.post(PATH, content=body, headers=headers)
        assert response.status_code == 400, response.text


async def test_a_large_file_is_refused(shared: httpx.AsyncClient) -> None:
    response = await upload(shared, bytes(3 * 2**20), METADATA)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


NAMES = {
    "": "invalid_field",
    ".hidden": "invalid_field",
    "-x": "invalid_field",
    "Upper": "invalid_field",
    "a/b": "invalid_field",
    "../x": "invalid_field",
    "a b": "invalid_field",
    "a\0": "invalid_field",
    "a\n": "invalid_field",
    "ünï": "invalid_field",
    "a@1": "invalid_field",
    "a:b": "invalid_field",
    "x" * 65: "invalid_field",
    "none": "name_reserved",
    "base": "name_reserved",
    "default": "name_reserved",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
async def test_a_bad_name_is_refused_everywhere(shared: httpx.AsyncClient, name: str) -> None:
    from urllib.parse import quote

    body = {"name": name, "interventions": [{"operation": "add", "direction": "cheer"}]}
    requests = {
        "direction": await shared.post(PATH, json=vector(name)),
        "profile": await shared.post("/v1/steering/profiles", json=body),
    }
    if name and "/" not in name:
        path = f"/v1/steering/aliases/{quote(name)}"
        requests["alias"] = await shared.put(path, json={"profile": "cheerful"})
    for noun, response in requests.items():
        status, code, param = 422, NAMES[name], "alias" if noun == "alias" else "name"
        if noun == "alias" and not name.isprintable():
            status, code, param = 400, "invalid_url", "path"
        elif "\0" in name:
            status, code = 400, "invalid_unicode"
        assert response.status_code == status, (noun, response.text)
        assert response.json()["error"]["code"] == code
        assert response.json()["error"]["param"] == param


async def test_a_path_in_a_name_reads_no_file(shared: httpx.AsyncClient) -> None:
    for name in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "x@0", "x@", "x@99999999999"):
        response = await shared.get(f"{PATH}/{name}/tensors")
        assert response.status_code in ((400,) if "%00" in name else (404, 422)), name
        assert set(response.json()) == {"error"}


async def upload(
    client: httpx.AsyncClient, data: bytes, metadata: dict[str, Any]
) -> httpx.Response:
    return await client.post(
        PATH, files={"file": ("f", data)}, data={"metadata": json.dumps(metadata)}
    )


async def assert_nothing_stored(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{PATH}/up")).status_code == 404


def rows_of(size: int) -> tuple[bytes, int]:
    """A file of exactly `size` bytes: a basis of as many rows as fit, its header padded."""
    rows = (size - 200) // 32
    header = json.dumps({"basis": entry(shape=(rows, 8), offsets=(0, 32 * rows))}).encode()
    header += b" " * (size - 8 - len(header) - 32 * rows)
    return raw(header, struct.pack("<8f", *ROW) * rows), rows


@pytest.mark.parametrize("limit", [1024, 2**20, 65 * 2**20])
async def test_the_bound_of_uploads_is_what_it_is_set_to(
    store: Store, engine: EchoEngine, tmp_path: Path, limit: int
) -> None:
    settings = Settings(data_dir=tmp_path / "data", max_upload_bytes=limit)
    metadata = {"kind": "basis", "site": "resid_post", "layers": [1]}
    async with connect(create_app(settings, engine, store)) as client:  # type: ignore[arg-type]
        limits = (await client.get("/v1/capabilities")).json()["limits"]
        assert limits["max_upload_bytes"] == limit
        data, rows = rows_of(limit)
        response = await upload(client, data, {"name": "at", **metadata})
        assert response.status_code == 201, response.text
        assert (await client.get(f"{PATH}/at/tensors")).content == data
        record = store.directions.get("at")
        assert store.directions.load(record).tensors["basis"].shape == (rows, 8)
        response = await upload(client, rows_of(limit + 1)[0], {"name": "up", **metadata})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (
            413,
            "body_too_large",
            "file",
        )
        assert f"file has {limit + 1} bytes; expected at most {limit}" in error["message"]
        await assert_nothing_stored(client)


@pytest.mark.parametrize("limit", [1024, 2**20])
async def test_the_bound_of_documents_is_what_is_said(
    store: Store, engine: EchoEngine, tmp_path: Path, limit: int
) -> None:
    """It has room for tensors of the bound of files."""
    settings = Settings(data_dir=tmp_path / "data", max_upload_bytes=limit)
    packed = base64.b64encode(struct.pack("<8f", *ROW) * (limit // 32)).decode()
    tensors = {"basis": {"dtype": "F32", "shape": [limit // 32, 8], "data": packed}}
    document = json.dumps({**vector("up", kind="basis"), "tensors": tensors}).encode()
    headers = {"content-type": "application/json"}
    async with connect(create_app(settings, engine, store)) as client:  # type: ignore[arg-type]
        limits = (await client.get("/v1/capabilities")).json()["limits"]
        largest = limits["max_json_upload_bytes"]
        response = await client.post(PATH, content=document.ljust(largest + 1), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
        await assert_nothing_stored(client)
        response = await client.post(PATH, content=document.ljust(largest), headers=headers)
        assert response.status_code == 201, response.text


async def test_damaged_uploads_are_stored_or_refused_in_plain_words(
    client: httpx.AsyncClient,
) -> None:
    """Through the whole application, which adds no text of its own."""
    source = random.Random("uploads")
    document = json.dumps(vector("up", provenance={"by": "x"}, tags=["a"])).encode()
    seen: Counter[int] = Counter()
    for _ in range(150):
        for data in (tensor(), control_vector()):
            response = await upload(client, damaged(data, source), METADATA)
            seen[response.status_code] += 1
            assert_plain(response)
        response = await client.post(
            PATH, content=damaged(document, source), headers={"content-type": "application/json"}
        )
        seen[response.status_code] += 1
        assert_plain(response)
    assert set(seen) <= {200, 201, 400, 422}
    assert min(seen[201], seen[400], seen[422]) > 0


def assert_plain(response: httpx.Response) -> None:
    if response.status_code >= 400:
        message = response.json()["error"]["message"]
        assert not INTERNALS.search(message), message
        assert message.isprintable(), message
