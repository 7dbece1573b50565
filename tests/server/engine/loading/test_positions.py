"""Rotary embeddings must not depend on who else is in the batch."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from server.engine.loading.positions import freeze_longrope, refuse_dynamic_rope
from steering.errors import UnsupportedArchitectureError
from tests.models.tiny import tiny_model

_TRAINED = 16
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 5.0, 8.0],
    "original_max_position_embeddings": _TRAINED,
}


def _longrope_model() -> PreTrainedModel:
    return tiny_model(
        "phi3",
        rope_parameters=_LONGROPE,
        original_max_position_embeddings=_TRAINED,
        sliding_window=None,
    )


def _logits(model: PreTrainedModel, length: int) -> torch.Tensor:
    ids = torch.arange(length)[None] % 200
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits[0]


@pytest.mark.parametrize(("max_model_len", "chosen"), [(_TRAINED, "short"), (200, "long")])
def test_the_frozen_set_is_transformers_own_for_that_length(
    max_model_len: int, chosen: str
) -> None:
    length = min(max_model_len, 40)
    expected = _logits(_longrope_model(), length)
    model = _longrope_model()
    assert freeze_longrope(model, max_model_len) == chosen
    torch.testing.assert_close(_logits(model, length), expected, atol=1e-5, rtol=1e-5)


def test_a_frozen_model_treats_a_prefix_alike_whatever_follows() -> None:
    model = _longrope_model()
    short, long = _logits(model, 8), _logits(model, 40)[:8]
    assert (short - long).abs().max() > 1e-3  # so that the next lines can fail
    freeze_longrope(model, 40)
    torch.testing.assert_close(_logits(model, 8), _logits(model, 40)[:8], atol=1e-5, rtol=1e-5)


def test_other_models_are_left_alone() -> None:
    model = tiny_model("gemma3")
    before = _logits(model, 20)
    refuse_dynamic_rope(model)
    assert freeze_longrope(model, 512) is None
    assert torch.equal(_logits(model, 20), before)


def test_dynamic_frequencies_are_refused() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    with pytest.raises(UnsupportedArchitectureError, match="dynamic"):
        refuse_dynamic_rope(tiny_model("llama", rope_parameters=rope))
