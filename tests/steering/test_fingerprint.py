from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from steering import fingerprint
from steering.errors import SteeringError
from steering.fingerprint import model_fingerprint

CONFIG: dict[str, Any] = {"hidden_size": 8, "rope": {"theta": 1e4}, "layers": ["a", "b"]}


def small_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 8, bias=False))


@pytest.fixture(params=["full", "sampled"])
def _content(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "sampled":
        monkeypatch.setattr(fingerprint, "FULL_CONTENT_BYTES", 0)
        monkeypatch.setattr(fingerprint, "_SAMPLED_ITEMS", 3)
        monkeypatch.setattr(fingerprint, "_CHUNK_ITEMS", 5)


@pytest.mark.usefixtures("_content")
class TestContent:
    def test_equal_models_have_equal_fingerprints_also_after_saving(self) -> None:
        model, other = small_model(), small_model(seed=1)
        first = model_fingerprint(model, CONFIG)
        assert len(first) == 32
        assert int(first, 16) >= 0
        other.load_state_dict(load(save(model.state_dict())))
        assert model_fingerprint(other, dict(reversed(CONFIG.items()))) == first

    @pytest.mark.parametrize("index", range(0, 128, 9))
    def test_every_weight_counts(self, index: int) -> None:
        model = small_model()
        before = model_fingerprint(model, CONFIG)
        with torch.no_grad():
            weight = model[0].weight.view(-1)
            weight[index] = torch.nextafter(weight[index], torch.tensor(9.0))
        assert model_fingerprint(model, CONFIG) != before

    def test_seed_dtype_name_shape_and_buffers_count(self) -> None:
        fingerprints = {model_fingerprint(small_model(), CONFIG)}
        fingerprints.add(model_fingerprint(small_model(seed=1), CONFIG))
        fingerprints.add(model_fingerprint(small_model().to(torch.bfloat16), CONFIG))
        fingerprints.add(model_fingerprint(nn.Sequential(nn.Identity(), *small_model()), CONFIG))
        buffered = small_model()
        buffered.register_buffer("scale", torch.ones(1, dtype=torch.bool))
        fingerprints.add(model_fingerprint(buffered, CONFIG))
        reshaped = small_model()
        reshaped[2].weight = nn.Parameter(reshaped[2].weight.reshape(16, 8))
        fingerprints.add(model_fingerprint(reshaped, CONFIG))
        assert len(fingerprints) == 6

    def test_memory_layout_does_not_count(self) -> None:
        model, strided = small_model(), small_model()
        weight = strided[0].weight
        weight.data = weight.data.t().contiguous().t()
        assert model_fingerprint(strided, CONFIG) == model_fingerprint(model, CONFIG)


def test_only_configuration_that_changes_numbers_counts() -> None:
    model = small_model()
    before = model_fingerprint(model, CONFIG)
    volatile = {
        "transformers_version": "5.0",
        "_name_or_path": "here",
        "torch_dtype": torch.float32,
        "rope": {"theta": 1e4, "dtype": "float32"},
    }
    assert model_fingerprint(model, CONFIG | volatile) == before
    assert model_fingerprint(model, CONFIG | {"rope": {"theta": 1e5}}) != before
    assert model_fingerprint(model, CONFIG | {"layers": ["b", "a"]}) != before
    assert model_fingerprint(model, CONFIG | {"new": None}) != before


def test_weights_without_content_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(SteeringError, match="bias is on the meta device") as caught:
        model_fingerprint(model, CONFIG)
    assert caught.value.param == "model"


def test_exchanged_elements_between_the_samples_are_the_documented_blind_spot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fingerprint, "FULL_CONTENT_BYTES", 0)
    monkeypatch.setattr(fingerprint, "_SAMPLED_ITEMS", 1)
    model = small_model()
    before = model_fingerprint(model, CONFIG)
    with torch.no_grad():
        weight = model[0].weight.view(-1)
        weight[[5, 6]] = weight[[6, 5]]
    assert model_fingerprint(model, CONFIG) == before
