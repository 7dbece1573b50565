"""What a model's makers recommend is read from its files, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.engine.errors import InvalidSamplingError, ModelLoadError
from server.engine.loading.generation_config import read_sampling_defaults
from server.engine.sampling import SamplingDefaults


def _write(folder: Path, document: Any) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(document))
    return folder


def test_what_vllm_reads_is_read(tmp_path: Path) -> None:
    document = {
        "do_sample": False,
        "eos_token_id": 2,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0,
        "repetition_penalty": 1.05,
        "max_new_tokens": 64,
    }
    assert read_sampling_defaults(_write(tmp_path, document)) == SamplingDefaults(
        temperature=0.6, top_p=0.9, top_k=20, min_p=0.0, repetition_penalty=1.05, max_tokens=64
    )


def test_a_folder_without_the_file_or_with_nulls_says_nothing(tmp_path: Path) -> None:
    assert read_sampling_defaults(tmp_path) == SamplingDefaults()
    nulls = _write(tmp_path, {"temperature": None, "max_new_tokens": None})
    assert read_sampling_defaults(nulls) == SamplingDefaults()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"temperature": True}, "temperature is True; expected a number"),
        ({"temperature": 3}, "temperature is 3; expected a number from 0 to 2"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": 1.5}, "top_k is 1.5; expected a whole number"),
        ({"max_new_tokens": 0}, "max_tokens is 0"),
        ([], "not a JSON object"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_used_is_named(
    tmp_path: Path, document: Any, complaint: str
) -> None:
    with pytest.raises(ModelLoadError, match="generation_config") as caught:
        read_sampling_defaults(_write(tmp_path, document))
    assert complaint in str(caught.value)


def test_one_set_of_defaults_fills_the_gaps_of_another() -> None:
    own = SamplingDefaults(temperature=0.0, top_k=0)
    recommended = SamplingDefaults(temperature=0.7, top_p=0.9)
    assert own.over(recommended) == SamplingDefaults(temperature=0.0, top_p=0.9, top_k=0)
    with pytest.raises(InvalidSamplingError):
        SamplingDefaults(temperature=-1)
