from __future__ import annotations

import struct
from pathlib import Path

import gguf as library
import numpy as np
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.errors import (
    FormatError,
    IncompatibleModelError,
    IncompatibleOperationError,
    LayerOutOfRangeError,
    NonFiniteError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
    ZeroVectorError,
)
from steering.formats import dump_control_vector, load_control_vector
from steering.model_spec import ModelSpec
from steering.sites import Site

from .files import (
    ARRAY,
    BF16,
    I64,
    Q4_0,
    STRING,
    UINT32,
    control_vector,
    gguf,
    string,
    tensor_info,
    text_field,
)

ONE = np.array([3.0, 4.0], dtype=np.float32)
SPEC = ModelSpec("served", "llama", "f" * 64, num_layers=4, hidden_size=2, num_heads=1, head_dim=2)


def test_direction_i_is_the_output_of_block_i() -> None:
    vectors = {f"direction.{i}": ONE * i for i in (12, 1, 3)}
    direction = load_control_vector(control_vector(vectors), "v", model_fingerprint="f")
    assert (direction.kind, direction.site) == (DirectionKind.VECTOR, Site.RESID_POST)
    assert direction.layers == (1, 3, 12)
    assert direction.is_per_layer
    assert direction.model_fingerprint == "f"
    for layer in direction.layers:
        assert direction.at(layer)["vector"].tolist() == (ONE * layer).tolist()
    assert direction.provenance == {
        "source_format": "gguf",
        "architecture": "controlvector",
        "model_hint": "llama",
    }


def test_float16_and_the_other_name_of_the_format_are_read() -> None:
    data = control_vector({"direction.2": ONE.astype(np.float16)}, architecture="steeringvector")
    direction = load_control_vector(data, "v")
    assert direction.layers == (2,)
    assert direction.tensors["vector.2"].dtype == torch.float16
    assert direction.provenance["architecture"] == "steeringvector"
    assert direction.provenance["model_hint"] == "llama"


def test_direction_0_is_refused_as_ambiguous() -> None:
    data = control_vector({"direction.1": ONE, "direction.0": ONE})
    with pytest.raises(LayerOutOfRangeError, match=r"has direction\.0, which llama\.cpp") as caught:
        load_control_vector(data, "v")
    assert caught.value.param == "file"


@pytest.mark.parametrize("alignment", [8, 32, 64])
def test_files_of_the_library_are_read(tmp_path: Path, alignment: int) -> None:
    """With every type of key, so that each is skipped by its own size."""
    path = tmp_path / "v.gguf"
    writer = library.GGUFWriter(path, "controlvector")
    writer.add_custom_alignment(alignment)
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{kind}")(f"x.{kind}", 5)
    writer.add_float32("x.float32", 0.5)
    writer.add_float64("x.float64", 0.5)
    writer.add_bool("x.bool", True)
    writer.add_array("x.numbers", [1, 2, 3])
    writer.add_array("x.texts", ["a", "", "bcd"])
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", ONE * layer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    direction = load_control_vector(path.read_bytes(), "v")
    assert direction.at(1)["vector"].tolist() == ONE.tolist()
    assert direction.at(2)["vector"].tolist() == (ONE * 2).tolist()
    assert direction.provenance["model_hint"] == "mistral"


def array(kind: int, length: int, body: bytes = b"") -> bytes:
    return string("a") + struct.pack("<IIQ", ARRAY, kind, length) + body


def nested(depth: int) -> bytes:
    """A key whose value is an array in an array in an array."""
    return string("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * depth


INFO, RAW = tensor_info("direction.1", [2]), ONE.tobytes()
ARCHITECTURE = text_field("general.architecture", "controlvector")
ALIGNMENT = string("general.alignment") + struct.pack("<I", UINT32)


def with_fields(*fields: bytes) -> bytes:
    return gguf([INFO], RAW, fields=[ARCHITECTURE, *fields])


BROKEN = {
    "magic": (gguf([INFO], RAW, magic=b"GGML"), "does not begin with GGUF"),
    "empty": (b"", "does not begin with GGUF"),
    "magic only": (b"GGUF", "ends within its header"),
    "version 99": (gguf([INFO], RAW, version=99), "version is 99; expected 2 or 3"),
    "version 0": (gguf([INFO], RAW, version=0), "version is 0; expected 2 or 3"),
    "big endian": (gguf([INFO], RAW, version=3 << 24), "version is 50331648.*little-endian"),
    "truncated": (gguf([INFO], RAW)[:-1], r"direction\.1 is at bytes 0 to 8.* in 7 bytes"),
    "no data": (gguf([INFO], b""), r"direction\.1 is at bytes 0 to 8.* in 0 bytes"),
    "no tensors": (gguf([], b""), "holds no tensor"),
    "2^63 fields": (gguf([INFO], RAW, num_fields=2**63), "is not|ends|twice|unknown"),
    "2^63 tensors": (gguf([INFO], RAW, num_tensors=2**63), f"{2**63} tensors; expected 1 to 512"),
    "string of 2^60": (
        gguf([INFO], RAW, fields=[struct.pack("<Q", 2**60) + b"x"]),
        "ends within its header",
    ),
    "2^32 dims": (
        gguf([tensor_info("direction.1", [2], num_dims=2**32 - 1)], RAW),
        r"'direction\.1' has 4294967295 dimensions; expected at most 4",
    ),
    "dim 2^62": (gguf([tensor_info("direction.1", [2**62])], RAW), r"direction\.1 is at bytes"),
    "offset 2^40": (
        gguf([tensor_info("direction.1", [2], offset=2**40)], RAW),
        r"direction\.1 is at bytes 1099511627776 to .*; expected it at 0",
    ),
    "hole": (gguf([tensor_info("direction.1", [2], offset=32)], bytes(64)), "expected it at 0"),
    "overlap": (gguf([INFO, tensor_info("direction.2", [2])], bytes(64)), "expected it at 32"),
    "duplicate tensor": (gguf([INFO, INFO], RAW), r"has the tensor 'direction\.1' twice"),
    "duplicate field": (
        with_fields(*[ALIGNMENT + struct.pack("<I", 32)] * 2),
        r"has the key 'general\.alignment' twice",
    ),
    "align 0": (with_fields(ALIGNMENT + struct.pack("<I", 0)), "not a power of two"),
    "align 3": (with_fields(ALIGNMENT + struct.pack("<I", 3)), "not a power of two"),
    "align 2^31": (with_fields(ALIGNMENT + struct.pack("<I", 2**31)), "not a power of two"),
    "align text": (with_fields(text_field("general.alignment", "32")), "not a power of two"),
    "field type 999": (with_fields(string("a") + struct.pack("<I", 999)), "'a' has .* type 999"),
    "name not utf-8": (gguf([string(b"\xff") + INFO[19:]], RAW), "tensor's name is not UTF-8"),
    "key not utf-8": (with_fields(string(b"\xff") + struct.pack("<I", 0)), "a key is not UTF-8"),
    "nested arrays": (with_fields(nested(20_000)), "'a' has the unknown or nested type 9"),
    "array of 2^62": (with_fields(array(UINT32, 2**62)), "ends within its header"),
    "texts of 2^62": (with_fields(array(STRING, 2**62, bytes(64))), "ends within its header"),
    "array of 12 MB": (
        with_fields(array(0, 3_000_000, bytes(3_000_000))),
        "header has more than 1048576 bytes",
    ),
    "texts of 3 MB": (
        with_fields(array(STRING, 400_000, bytes(3_200_000))),
        "header has more than 1048576 bytes",
    ),
    "no architecture": (gguf([INFO], RAW, fields=[]), r"general\.architecture is missing"),
    "another architecture": (
        gguf([INFO], RAW, fields=[text_field("general.architecture", "llama")]),
        "architecture is 'llama'; expected one of controlvector, steeringvector",
    ),
    "architecture no text": (
        gguf([INFO], RAW, fields=[string("general.architecture") + struct.pack("<II", UINT32, 1)]),
        r"general\.architecture is not a text",
    ),
    "hint not utf-8": (
        with_fields(
            string("controlvector.model_hint") + struct.pack("<I", STRING) + string(b"\xff")
        ),
        r"controlvector\.model_hint is not UTF-8",
    ),
    "count a text": (
        with_fields(text_field("controlvector.layer_count", "2")),
        r"controlvector\.layer_count is not an integer",
    ),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_format_errors_about_the_file(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        load_control_vector(data, "v")
    assert caught.value.param == "file"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        *(
            (
                gguf([tensor_info("direction.1", [32], dtype=dtype)], bytes(256)),
                UnsupportedDtypeError,
                rf"direction\.1 has GGUF type {dtype}; expected 0 \(F32\) or 1 \(F16\)",
            )
            for dtype in (Q4_0, BF16, I64, 999)
        ),
        (gguf([tensor_info("direction.1", [0])], b""), ShapeMismatchError, r"direction\.1"),
        (gguf([tensor_info("direction.1", [])], RAW), ShapeMismatchError, r"direction\.1"),
        (gguf([tensor_info("direction.1", [1, 2])], RAW), ShapeMismatchError, r"direction\.1"),
        (
            control_vector({"direction.1": ONE, "direction.2": np.ones(3, dtype=np.float32)}),
            ShapeMismatchError,
            "layer 2 have width 3, those of layer 1 2",
        ),
    ],
)
def test_unusable_tensors_have_their_own_errors(
    data: bytes, error: type[SteeringError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_control_vector(data, "v")


@pytest.mark.parametrize("layer", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("factor", "error"), [(np.nan, NonFiniteError), (np.inf, NonFiniteError), (0, ZeroVectorError)]
)
def test_one_bad_vector_among_many_names_itself(
    layer: int, factor: float, error: type[SteeringError]
) -> None:
    vectors = {f"direction.{i}": ONE * (factor if i == layer else 1) for i in (1, 2, 3, 7)}
    with pytest.raises(error, match=rf"^vector\.{layer} ") as caught:
        load_control_vector(control_vector(vectors), "v")
    assert caught.value.param == f"tensors.vector.{layer}"


@pytest.mark.parametrize(
    "name",
    [
        *("direction.-1", "direction.abc", "direction.01", "direction.1.2", "direction.1 "),
        *("direction.1073741824", "direction", "../../direction.1", "blk.0.attn_q.weight"),
    ],
)
def test_only_directions_of_plain_layers_are_taken(name: str) -> None:
    with pytest.raises(FormatError, match=r"has only direction\.<layer>") as caught:
        load_control_vector(control_vector({name: ONE}), "v")
    assert name in str(caught.value)


def test_too_many_tensors() -> None:
    vectors = {f"direction.{i}": ONE for i in range(1, 514)}
    with pytest.raises(FormatError, match="513 tensors; expected 1 to 512"):
        load_control_vector(control_vector(vectors), "v")


def of_model(
    hint: str = "llama", *, layers: tuple[int, ...] = (1, 3), count: int | None = None
) -> bytes:
    """A file that says of which model it is."""
    vectors = {f"direction.{layer}": ONE for layer in layers}
    return control_vector(vectors, model_hint=hint, layer_count=count)


FAMILIES = {  # family as Transformers has it: names under which it is also known
    "llama": {"llama", "Llama"},
    "mistral": {"mistral", "llama"},
    "mixtral": {"mixtral", "llama"},
    "qwen2": {"qwen2"},
    "qwen3": {"qwen3"},
    "qwen3_moe": {"qwen3_moe", "qwen3moe"},
    "gemma2": {"gemma2"},
    "gemma3_text": {"gemma3_text", "gemma3"},
    "gpt_neox": {"gpt_neox", "gptneox"},
    "phi3": {"phi3"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_model_hint_must_be_the_family_of_the_model(family: str) -> None:
    model = ModelSpec("served", family, "f" * 64, 4, hidden_size=2, num_heads=1, head_dim=2)
    for hint in ({""}.union(*FAMILIES.values()) | {"unheard-of"}) - {"Llama"}:
        data = of_model(hint)
        if not hint or hint in FAMILIES[family]:
            assert load_control_vector(data, "v", model=model).layers == (1, 3)
            continue
        with pytest.raises(IncompatibleModelError) as caught:
            load_control_vector(data, "v", model=model)
        assert caught.value.param == "file"
        for part in (f"'{hint}'", f"'{family}'", f"model_fingerprint '{'f' * 64}'"):
            assert part in str(caught.value)
        known = load_control_vector(data, "v", model=model, model_fingerprint="f" * 64)
        assert known.model_fingerprint == "f" * 64


@pytest.mark.parametrize(
    ("layers", "count", "fits"),
    [
        ((1, 2, 3), 3, True),  # complete, as repeng and llama.cpp write it
        ((2,), 1, True),
        ((1,), 1, True),
        ((1, 3), 2, True),
        ((1, 3), 3, True),  # of the model's layers but one
        ((1, 3), 4, True),  # of the model's layers
        ((1, 3), None, True),
        ((1, 3), 5, False),
        ((1, 2, 3, 4), 4, True),  # layer 4 is refused by `check_direction`
        ((1, 2), 2, False),  # complete for a model of three layers
        ((1, 3), 1, False),
        ((1, 3), 2**32 - 1, False),
        ((1, 3), 0, False),
    ],
)
def test_layer_count_is_compared_with_the_model(
    layers: tuple[int, ...], count: int | None, fits: bool
) -> None:
    data = of_model(layers=layers, count=-1 if count is None else count)
    assert load_control_vector(data, "v").layers == layers
    assert load_control_vector(data, "v", model=SPEC, model_fingerprint="f").layers == layers
    if fits:
        assert load_control_vector(data, "v", model=SPEC).layers == layers
        return
    with pytest.raises(IncompatibleModelError, match=f"layer_count .* is {count}, ") as caught:
        load_control_vector(data, "v", model=SPEC)
    assert "served has 4 layers" in str(caught.value)
    assert "model_fingerprint" in str(caught.value)


def test_export_is_read_back_here_and_by_the_library(tmp_path: Path) -> None:
    direction = Direction(
        "v",
        DirectionKind.VECTOR,
        Site.RESID_POST,
        (1, 5),
        {f"vector.{i}": torch.arange(1.0, 6.0) * i for i in (1, 5)},
    )
    data = dump_control_vector(direction, model_hint="llama")
    assert load_control_vector(data, "v").digest == direction.digest
    path = tmp_path / "v.gguf"
    path.write_bytes(data)
    reader = library.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 2
    assert {t.name: t.data.tolist() for t in reader.tensors} == {
        "direction.1": [1.0, 2.0, 3.0, 4.0, 5.0],
        "direction.5": [5.0, 10.0, 15.0, 20.0, 25.0],
    }


def test_export_repeats_a_single_vector_as_float32() -> None:
    vector = {"vector": torch.tensor([1.5, 2.0], dtype=torch.bfloat16)}
    direction = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (2, 3), vector)
    loaded = load_control_vector(dump_control_vector(direction, model_hint=""), "v")
    assert loaded.layers == (2, 3)
    assert all(t.dtype == torch.float32 for t in loaded.tensors.values())
    assert loaded.at(3)["vector"].tolist() == [1.5, 2.0]


def test_export_refuses_what_llama_cpp_would_not_load_or_misplace() -> None:
    vector = {"vector": torch.ones(2)}
    at_zero = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (0, 1), vector)
    with pytest.raises(LayerOutOfRangeError, match=r"direction\.0"):
        dump_control_vector(at_zero, model_hint="")
    elsewhere = Direction("v", DirectionKind.VECTOR, Site.MLP_OUT, (1,), vector)
    with pytest.raises(IncompatibleOperationError, match="'mlp_out'"):
        dump_control_vector(elsewhere, model_hint="")
    basis = Direction("v", DirectionKind.BASIS, Site.RESID_POST, (1,), {"basis": torch.eye(2)})
    with pytest.raises(IncompatibleOperationError, match="'basis'"):
        dump_control_vector(basis, model_hint="")
