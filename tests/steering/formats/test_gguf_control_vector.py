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
    IncompatibleOperationError,
    LayerOutOfRangeError,
    NonFiniteError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
    ZeroVectorError,
)
from steering.formats import dump_control_vector, gguf_control_vector, load_control_vector
from steering.sites import Site

from .files import ARRAY, BF16, I64, Q4_0, UINT32, control_vector, gguf, string, tensor_info


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the processor limit depends on the machine's own speed, not on what else it does."""
    monkeypatch.setattr(gguf_control_vector, "TIMEOUT_SECONDS", 60.0)


ONE = np.array([3.0, 4.0], dtype=np.float32)


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


def test_direction_0_and_float16_and_other_architectures_are_read() -> None:
    data = control_vector({"direction.0": ONE.astype(np.float16)}, architecture="steeringvector")
    direction = load_control_vector(data, "v")
    assert direction.layers == (0,)
    assert direction.tensors["vector.0"].dtype == torch.float16
    assert direction.provenance["architecture"] == "steeringvector"
    assert direction.provenance["model_hint"] == "llama"


def test_files_of_the_library_are_read(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    writer = library.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", ONE * layer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    direction = load_control_vector(path.read_bytes(), "v")
    assert direction.at(2)["vector"].tolist() == (ONE * 2).tolist()
    assert direction.provenance["model_hint"] == "mistral"


def bomb(length: int) -> bytes:
    """A key whose value is an array of `length` bytes: slow to parse, one object each."""
    return string("a") + struct.pack("<IIQ", ARRAY, 0, length) + bytes(length)


def nested(depth: int) -> bytes:
    """A key whose value is an array in an array in an array."""
    return string("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * depth


INFO, RAW = tensor_info("direction.1", [2]), ONE.tobytes()
ALIGNMENT = string("general.alignment") + struct.pack("<I", UINT32)
BROKEN = {
    "empty": b"",
    "magic": gguf([INFO], RAW, magic=b"GGML"),
    "magic only": b"GGUF",
    "version 99": gguf([INFO], RAW, version=99),
    "version 0": gguf([INFO], RAW, version=0),
    "truncated": gguf([INFO], RAW)[:-1],
    "no data": gguf([INFO], b""),
    "no tensors": gguf([], b""),
    "2^63 fields": gguf([INFO], RAW, num_fields=2**63),
    "2^63 tensors": gguf([INFO], RAW, num_tensors=2**63),
    "string of 2^60": gguf([INFO], RAW, fields=[struct.pack("<Q", 2**60) + b"x"]),
    "2^32 dims": gguf([tensor_info("direction.1", [2], num_dims=2**32 - 1)], RAW),
    "offset 2^40": gguf([tensor_info("direction.1", [2], offset=2**40)], RAW),
    "dtype 999": gguf([tensor_info("direction.1", [2], dtype=999)], RAW),
    "duplicate tensor": gguf([INFO, INFO], RAW),
    "duplicate field": gguf([INFO], RAW, fields=[ALIGNMENT + struct.pack("<I", 32)] * 2),
    "align 0": gguf([INFO], RAW, fields=[ALIGNMENT + struct.pack("<I", 0)]),
    "align 3": gguf([INFO], RAW, fields=[ALIGNMENT + struct.pack("<I", 3)]),
    "align 2^31": gguf([INFO], RAW, fields=[ALIGNMENT + struct.pack("<I", 2**31)]),
    "field type 999": gguf([INFO], RAW, fields=[string("a") + struct.pack("<I", 999)]),
    "name not utf-8": gguf([string(b"\xff") + INFO[19:]], RAW),
    "nested arrays": gguf([INFO], RAW, fields=[nested(20_000)]),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_format_errors_about_the_file(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^not a |1 to \d+$") as caught:
        load_control_vector(data, "v")
    assert caught.value.param == "file"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (control_vector({"direction.9999": ONE}), LayerOutOfRangeError, "above 4095"),
        (
            gguf([tensor_info("direction.1", [32], dtype=Q4_0)], bytes(18)),
            UnsupportedDtypeError,
            "Q4_0",
        ),
        (
            gguf([tensor_info("direction.1", [2], dtype=BF16)], bytes(4)),
            UnsupportedDtypeError,
            "BF16",
        ),
        (
            gguf([tensor_info("direction.1", [2], dtype=I64)], bytes(16)),
            UnsupportedDtypeError,
            "I64",
        ),
        (gguf([tensor_info("direction.1", [0])], b""), ShapeMismatchError, "direction.1"),
        (gguf([tensor_info("direction.1", [])], RAW), ShapeMismatchError, "direction.1"),
        (gguf([tensor_info("direction.1", [1, 2])], RAW), ShapeMismatchError, "direction.1"),
        (control_vector({"direction.1": ONE * np.nan}), NonFiniteError, "NaN"),
        (control_vector({"direction.1": ONE * 0}), ZeroVectorError, "norm 0"),
        (
            control_vector({"direction.1": ONE, "direction.2": np.ones(3, dtype=np.float32)}),
            ShapeMismatchError,
            "different widths",
        ),
        (gguf([tensor_info("direction.1", [2**62])], RAW), FormatError, "not a valid"),
    ],
)
def test_unusable_tensors_have_their_own_errors(
    data: bytes, error: type[SteeringError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_control_vector(data, "v")


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


def test_too_many_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_control_vector, "MAX_TENSORS", 2)
    with pytest.raises(FormatError, match="3 tensors; expected 1 to 2"):
        load_control_vector(control_vector({f"direction.{i}": ONE for i in range(3)}), "v")


def test_a_file_slow_to_parse_is_stopped_by_the_processor_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gguf_control_vector, "CPU_SECONDS", 1)
    with pytest.raises(FormatError, match="ended with status"):
        load_control_vector(gguf([INFO], RAW, fields=[bomb(3_000_000)]), "v")


def test_a_file_greedy_for_memory_is_stopped_by_the_memory_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gguf_control_vector, "MEMORY_BYTES", 200 * 2**20)
    with pytest.raises(FormatError, match=r"MemoryError|without an answer|ended with status"):
        load_control_vector(gguf([INFO], RAW, fields=[bomb(3_000_000)]), "v")


def test_a_worker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr(gguf_control_vector, "_WORKER", script)
    monkeypatch.setattr(gguf_control_vector, "TIMEOUT_SECONDS", 0.05)
    with pytest.raises(FormatError, match=r"longer than 0\.05 s"):
        load_control_vector(control_vector({"direction.1": ONE}), "v")


@pytest.mark.parametrize(
    "answer", ["", "[]", '{"error": "SystemExit", "message": "x"}', '{"error": ["FormatError"]}']
)
def test_a_worker_that_talks_nonsense_is_a_format_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    script = tmp_path / "nonsense.py"
    script.write_text(f"import sys\nprint({answer!r})\nsys.exit(1)\n")
    monkeypatch.setattr(gguf_control_vector, "_WORKER", script)
    with pytest.raises(FormatError, match="without an answer"):
        load_control_vector(control_vector({"direction.1": ONE}), "v")


def test_the_worker_starts_without_torch_and_without_our_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COXSWAIN_SECRET", "secret")
    script = tmp_path / "report.py"
    worker = Path(gguf_control_vector.__file__).with_name("gguf_worker.py")
    script.write_text(
        "import json, os, runpy, sys\n"
        f"runpy.run_path({str(worker)!r})['_convert'](sys.stdin.buffer, 9, 9)\n"
        "found = [name for name in ('torch', 'steering') if name in sys.modules]\n"
        "message = f'{found} {sorted(os.environ)}'\n"
        "print(json.dumps({'error': 'FormatError', 'message': message}))\n"
        "sys.exit(1)\n"
    )
    monkeypatch.setattr(gguf_control_vector, "_WORKER", script)
    with pytest.raises(FormatError, match=r"^\[\] ") as caught:
        load_control_vector(control_vector({"direction.1": ONE}), "v")
    assert "SECRET" not in str(caught.value)


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
