"""Models of the hub: out of the cache, downloaded by what is needed alone, or refused in a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from server.engine.errors import ModelLoadError
from server.engine.loading.checkpoint import check_checkpoint
from server.models import cached_ids, find_model
from tests.models.checkpoint import save_tiny

from .fake_hub import COMMIT, fake_hub

REST = {
    "modeling_tiny.py": b"raise RuntimeError('run')",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"other weights",
    "onnx/model.safetensors": b"other weights",
    "README.md": b"about it",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = save_tiny("llama", tmp_path_factory.mktemp("hub") / "tiny")
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "additional_chat_templates/rag.jinja": b"{{ messages }}"}


@pytest.fixture
def asked(
    files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Files that a hub on this machine was asked for."""
    del cache
    pickled = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    repositories = {
        "owner/tiny": {**files, **REST},
        "owner/pickled": pickled,
        "owner/quantised": {"tiny.Q4_K_M.gguf": b"GGUF"},
        "owner/empty": {"README.md": b""},
    }
    with fake_hub(repositories, frozenset({"owner/gated"})) as (address, found):
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put(cache: Path, files: dict[str, bytes], repo_id: str = "owner/tiny") -> Path:
    """A snapshot as `huggingface_hub` keeps it."""
    folder = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for name, data in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(data)
    return snapshot


def refused(given: str, expected: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        find_model(given)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_snapshot_of_the_cache_is_taken_without_asking(
    cache: Path, files: dict[str, bytes]
) -> None:
    snapshot = put(cache, files)
    found = find_model("owner/tiny")
    assert (found.path, found.served_name) == (snapshot, "owner/tiny")
    assert found.reason == "owner/tiny of the Hugging Face hub, snapshot 01234567 of the cache"
    assert find_model(f"owner/tiny@{COMMIT}").path == snapshot


def test_what_is_needed_is_downloaded_and_nothing_else(
    asked: list[str], files: dict[str, bytes], cache: Path
) -> None:
    found = find_model("owner/tiny")
    assert found.reason == "owner/tiny of the Hugging Face hub, snapshot 01234567, downloaded"
    assert set(asked) == set(files)
    assert found.path.is_relative_to(cache)
    check_checkpoint(found.path)
    held = {str(path.relative_to(found.path)) for path in found.path.rglob("*") if path.is_file()}
    assert held == set(files)


def test_what_was_downloaded_is_there_without_a_network(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_model("owner/tiny")
    assert asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    again = find_model("owner/tiny")
    assert again.path == first.path
    assert again.reason.endswith("of the cache")


def test_a_snapshot_that_is_not_whole_is_completed(
    asked: list[str], files: dict[str, bytes], cache: Path
) -> None:
    part = {name: data for name, data in files.items() if name != "model.safetensors"}
    put(cache, part)
    find_model("owner/tiny")
    assert "model.safetensors" in asked


@pytest.mark.usefixtures("cache")
def test_without_a_network_what_is_absent_is_refused() -> None:
    refused("owner/tiny", "is not in the cache")
    refused("owner/tiny", "HF_HUB_OFFLINE is set")


def test_without_a_network_what_is_not_whole_is_refused(
    cache: Path, files: dict[str, bytes]
) -> None:
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    put(cache, {"config.json": files["config.json"], "model.safetensors.index.json": index})
    refused("owner/tiny", "is not whole in the cache")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("owner/absent", "is not on the hub (or private: set HF_TOKEN)"),
        ("owner/tiny@v2", "has no revision 'v2' on the hub"),
        ("owner/gated", "is gated: accept its terms"),
        ("owner/pickled", 'a, b = "owner/pickled", "pickled-safetensors"'),
        ("owner/quantised", "hf download owner/quantised tiny.Q4_K_M.gguf"),
        ("owner/empty", "has no weights in safetensors"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_downloaded(
    asked: list[str], given: str, expected: str
) -> None:
    refused(given, expected)
    assert asked == []


def test_a_hub_out_of_reach_is_told(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    refused("owner/tiny", "is not in the cache, and could not be downloaded: ")
    assert asked == []


def test_a_configuration_is_enough_to_size_a_model(asked: list[str], cache: Path) -> None:
    found = find_model("owner/tiny", weights=False)
    assert asked == ["config.json"]
    assert [path.name for path in found.path.iterdir()] == ["config.json"]
    assert cached_ids() == ["owner/tiny"]
    assert find_model("owner/tiny", weights=False).reason.endswith("of the cache")
    assert find_model("owner/tiny").reason.endswith("downloaded"), "the rest of it"


@pytest.mark.usefixtures("cache")
def test_without_a_cache_none_is_listed() -> None:
    assert cached_ids() == []
