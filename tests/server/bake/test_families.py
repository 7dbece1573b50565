"""A baked checkpoint, loaded by plain transformers, computes what is served per request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from server.bake.options import BakeOptions
from server.bake.run import bake
from server.store import Store
from steering.documents import Intervention
from steering.layout import detect_layout
from steering.model_spec import ModelSpec
from steering.plan import Steer
from steering.weights.errors import WeightEditError
from tests.models import FAMILIES, save_tiny, tiny_model, tiny_tokenizer
from tests.models.families import family_model
from tests.server.engine.reference import reference_logits

from .conftest import DIRECTIONS, PROFILES

_BIASED = ("llama_biased", "gpt2", "gpt_neox", "gpt_neox_sequential")
_TIED = ("gemma", "gemma2", "gemma3", "gpt2")
IDS = list(b"The river rises in the hills to the north.")


def _served(model: PreTrainedModel, interventions: Sequence[dict[str, Any]]) -> Tensor:
    """Logits of the model with the operations applied to its outputs in float64."""
    layout = detect_layout(model)
    spec = ModelSpec(
        name="tiny",
        family=layout.family,
        fingerprint="",
        num_layers=layout.num_layers,
        hidden_size=layout.hidden_size,
        num_heads=layout.num_heads,
        head_dim=layout.head_dim,
        write_bias_means=layout.write_bias_means,
    )
    steers = [
        Steer(Intervention.from_dict(item), DIRECTIONS[item["direction"]]) for item in interventions
    ]
    return reference_logits(model, spec, IDS, 12, steers)


def _baked(path: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([IDS])).logits[0]
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_baked_weights_give_the_logits_of_the_served_operations(
    family: str, store: Store, tmp_path: Path
) -> None:
    """Several operations at one output, and a constant term where there is a bias to hold it."""
    profile = "constant" if family in _BIASED else "everywhere"
    if family in _TIED and family not in _BIASED:
        profile = "linear"
    out = tmp_path / "out"
    report = bake(BakeOptions(save_tiny(family, tmp_path / "in"), out, profile=profile), store)
    served, plain = _served(tiny_model(family), PROFILES[profile]), tiny_model(family)
    with torch.inference_mode():
        before = plain(input_ids=torch.tensor([IDS])).logits[0]
    assert (served - before).abs().max() > 0.1
    torch.testing.assert_close(_baked(out), served, atol=1e-4, rtol=1e-5)
    assert report.total.retained == pytest.approx(1.0, abs=1e-4)
    assert len(report.points) == 2 * 4 + (profile == "everywhere")


@pytest.mark.parametrize("name", ["granite", "cohere", "glm4", "opt", "starcoder2"])
def test_so_do_families_that_differ_in_what_is_added(
    name: str, store: Store, tmp_path: Path
) -> None:
    """Factors, post-norms and parallel branches come after the matrices that are edited."""
    model = family_model(name, num_hidden_layers=4)
    model.save_pretrained(tmp_path / "in")
    tiny_tokenizer().save_pretrained(tmp_path / "in")
    out = tmp_path / "out"
    bake(BakeOptions(tmp_path / "in", out, profile="linear"), store)
    served = _served(model, PROFILES["linear"])
    torch.testing.assert_close(_baked(out), served, atol=1e-4, rtol=1e-5)


def test_experts_with_a_bias_each_are_refused(store: Store, tmp_path: Path) -> None:
    model = family_model(
        "gpt_oss", num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2
    )
    model.save_pretrained(tmp_path / "in")
    tiny_tokenizer().save_pretrained(tmp_path / "in")
    with pytest.raises(WeightEditError, match="'mlp_out' of layer 2 have a bias each"):
        bake(BakeOptions(tmp_path / "in", None, profile="turned"), store)


@pytest.mark.parametrize("family", ["gemma", "gpt2"])
def test_a_tied_embedding_is_edited_apart_from_the_unembedding(
    family: str, store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = save_tiny(family, tmp_path / "in")
    bake(BakeOptions(model, out, profile="everywhere", untie=True), store)
    served = _served(tiny_model(family), PROFILES["everywhere"])
    torch.testing.assert_close(_baked(out), served, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "gpt2"])
def test_shards_are_edited_each_for_itself(family: str, store: Store, tmp_path: Path) -> None:
    save_tiny(family, tmp_path / "in")
    tiny_model(family).save_pretrained(tmp_path / "in", max_shard_size="40KB")
    (tmp_path / "in" / "model.safetensors").unlink()
    out = tmp_path / "out"
    untie = family in _TIED
    options = BakeOptions(tmp_path / "in", out, profile="everywhere", untie=untie)
    bake(options, store)
    assert len(list(out.glob("*.safetensors"))) > 3
    assert not (out / "model.safetensors").exists()
    served = _served(tiny_model(family), PROFILES["everywhere"])
    torch.testing.assert_close(_baked(out), served, atol=1e-4, rtol=1e-5)
