"""What is stored can be loaded again: strangers' files have bounds, files of ours have none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.registry.upload import Uploader
from server.resolver.library import DirectionLibrary, load_direction_blob
from server.store import SYSTEM, DirectionRecord, Store
from steering.compatibility import expected_width
from steering.directions import Direction, DirectionKind
from steering.documents import DirectionRef
from steering.errors import FormatError
from steering.formats import FileBounds, dump_direction, write_safetensors
from steering.model_spec import ModelSpec
from steering.sites import Site
from tests.steering.formats.files import control_vector

SHAPES: dict[DirectionKind, dict[str, tuple[str, ...]]] = {
    DirectionKind.VECTOR: {"vector": ("d",), "reference": ("d",)},
    DirectionKind.BASIS: {"basis": ("k", "d")},
    DirectionKind.TRANSPORT: {
        "basis": ("k", "d"),
        "offset": ("k",),
        "map": ("k", "d"),
        "shift": ("d",),
    },
    DirectionKind.DIAGONAL: {"scale": ("d",), "shift": ("d",)},
    DirectionKind.PLANE: {"basis": ("2", "d")},
    DirectionKind.HEADS: {"scale": ("d",)},
    DirectionKind.PROBE: {"weight": ("d",), "bias": ("1",)},
}


def model(num_layers: int, hidden_size: int) -> ModelSpec:
    return ModelSpec("wide", "llama", "f" * 64, num_layers, hidden_size, num_heads=4, head_dim=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder: Path = tmp_path_factory.mktemp("store")
    opened = Store.open(folder, load=load_direction_blob, low_water_bytes=0)
    yield opened
    opened.close()


def assert_loads(store: Store, record: DirectionRecord, expected: Direction) -> None:
    """Bit for bit, by a library that has not seen it."""
    reference = DirectionRef(record.name, record.version)
    loaded = DirectionLibrary(store).get(reference)
    assert loaded.digest == expected.digest == record.digest
    assert dict(loaded.tensors).keys() == dict(expected.tensors).keys()
    for name, tensor in expected.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name].view(torch.uint8), tensor.view(torch.uint8))
    assert (loaded.kind, loaded.site, loaded.layers) == (
        expected.kind,
        expected.site,
        expected.layers,
    )
    assert (loaded.requires, loaded.model_fingerprint) == (
        expected.requires,
        expected.model_fingerprint,
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@st.composite
def directions(draw: st.DrawFn) -> tuple[Direction, ModelSpec]:
    """Any direction, and a model it fits."""
    num_layers = draw(st.sampled_from([1, 4, 40, 200, 600]))
    spec = model(num_layers, draw(st.sampled_from([1, 8, 33, 256])))
    kind = draw(st.sampled_from(DirectionKind))
    site = Site.HEADS if kind is DirectionKind.HEADS else draw(st.sampled_from(Site))
    some = st.sets(st.integers(0, num_layers - 1), min_size=1, max_size=num_layers)
    layers = tuple(sorted(draw(some | st.just(set(range(num_layers))))))
    width, rank = expected_width(kind, site, spec), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    suffixes = [f".{layer}" for layer in layers] if draw(st.booleans()) else [""]
    tensors = {}
    for suffix in suffixes:
        for name, dims in SHAPES[kind].items():
            shape = [{"d": width, "k": rank}.get(dim) or int(dim) for dim in dims]
            tensors[name + suffix] = (torch.rand(shape, generator=generator) + 0.1).to(dtype)
    direction = Direction(
        name="a" + draw(st.from_regex(r"[a-z0-9._-]{0,63}", fullmatch=True)),
        kind=kind,
        site=site,
        layers=layers,
        tensors=tensors,
        model_fingerprint=draw(st.sampled_from([None, spec.fingerprint])),
        requires=draw(st.sampled_from([(), ("restricted",)])),
        provenance=draw(st.dictionaries(st.text(max_size=9), json_values, max_size=3)),
        tags=draw(st.sampled_from([(), ("a", "b")])),
    )
    return direction, spec


@settings(deadline=None, max_examples=60)
@given(made=directions())
def test_whatever_is_stored_is_loaded_bit_for_bit(
    store: Store, made: tuple[Direction, ModelSpec]
) -> None:
    direction, spec = made
    saved = Uploader(store, spec).from_direction(direction, by=SYSTEM).saved
    assert_loads(store, saved.record, direction)


def test_a_fitted_set_beyond_every_bound_of_uploads_is_loaded(store: Store) -> None:
    """As a transport of rank 64 for 33 layers of width 4,096, in which each part is long."""
    spec = model(130, 2048)
    ones = torch.ones(32, 2048)
    parts = {"basis": ones, "offset": torch.ones(32), "map": ones, "shift": torch.ones(2048)}
    tensors = {f"{name}.{i}": part for i in range(130) for name, part in parts.items()}
    direction = Direction(
        "fitted", DirectionKind.TRANSPORT, Site.RESID_POST, tuple(range(130)), tensors
    )
    record = Uploader(store, spec).from_direction(direction, by=SYSTEM).saved.record
    assert record.size_bytes > 64 * 2**20
    assert_loads(store, record, direction)
    with pytest.raises(FormatError, match="520 tensors; expected 1 to 512"):
        Uploader(store, spec).from_file(
            dump_direction(direction), {"name": "fitted-again"}, by=SYSTEM
        )


@pytest.mark.parametrize("size", [0, 1, 65_536, 2**20])
def test_texts_of_any_length_in_a_file_of_ours_are_no_obstacle(store: Store, size: int) -> None:
    direction = Direction(
        f"texts-{size}", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.ones(8)}
    )
    file = write_safetensors(direction.tensors, {"note": "x" * size})
    record = store.directions.put(direction, file, by=SYSTEM).record
    assert_loads(store, record, direction)


BOUNDS = FileBounds(max_tensors=3, max_header_bytes=400, max_metadata_bytes=50)


def from_file(store: Store, data: bytes, **metadata: Any) -> DirectionRecord:
    uploader = Uploader(store, model(4, 8), BOUNDS)
    return uploader.from_file(data, {"name": "stranger", **metadata}, by=SYSTEM).saved.record


def vectors(count: int) -> dict[str, torch.Tensor]:
    return {f"vector.{i}": torch.full((8,), float(i)) for i in range(1, count + 1)}


@pytest.mark.parametrize("count", [1, 3, 4])
def test_bounds_of_uploads_are_the_callers(store: Store, count: int) -> None:
    layers = list(range(1, count + 1))
    spec = {"kind": "vector", "site": "resid_post", "layers": layers}
    files = {
        "safetensors": (write_safetensors(vectors(count), {}), spec),
        "gguf": (
            control_vector({f"direction.{i}": torch.full((8,), float(i)).numpy() for i in layers}),
            {"model_fingerprint": "f" * 64},
        ),
    }
    document = {
        "name": "stranger",
        **spec,
        "tensors": {k: v.tolist() for k, v in vectors(count).items()},
    }
    if count <= BOUNDS.max_tensors:
        for data, metadata in files.values():
            assert from_file(store, data, **metadata).layers == tuple(layers)
        Uploader(store, model(5, 8), BOUNDS).from_document(document, by=SYSTEM)
        return
    for data, metadata in files.values():
        with pytest.raises(FormatError, match="4 tensors; expected 1 to 3"):
            from_file(store, data, **metadata)
    with pytest.raises(FormatError, match="4 tensors; expected 1 to 3"):
        Uploader(store, model(5, 8), BOUNDS).from_document(document, by=SYSTEM)


@pytest.mark.parametrize(("size", "fits"), [(46, True), (47, False)])
def test_the_bound_of_texts_is_exact(store: Store, size: int, fits: bool) -> None:
    """Keys count as well: "note" has four bytes."""
    data = write_safetensors(vectors(1), {"note": "x" * size})
    spec = {"kind": "vector", "site": "resid_post", "layers": [1]}
    if fits:
        record = from_file(store, data, **spec)
        assert store.directions.load(record).tensors["vector.1"].tolist() == [1.0] * 8
    else:
        with pytest.raises(FormatError, match="51 bytes; expected at most 50"):
            from_file(store, data, **spec)
