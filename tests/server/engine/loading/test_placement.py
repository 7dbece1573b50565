from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from server.engine.attention import AttentionSpec
from server.engine.errors import EngineError
from server.engine.loading.placement import (
    physical_cores,
    placement_summary,
    resolve_device,
    resolve_dtype,
)


@pytest.mark.parametrize("name", ["cuda:99", "mps", "nonsense", "cpu:x"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match="cpu") as caught:
        resolve_device(name)
    assert caught.value.param == "device"


def test_auto_is_an_accelerator_where_there_is_one() -> None:
    expected = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    assert resolve_device("auto") == expected
    assert resolve_device("cpu") == torch.device("cpu")


def test_dtypes() -> None:
    assert resolve_dtype("auto", torch.bfloat16) is torch.bfloat16
    assert resolve_dtype("auto", None) is torch.float32
    assert resolve_dtype("float16", torch.bfloat16) is torch.float16
    for name, checkpoint in (("float64", None), ("auto", torch.float64)):
        with pytest.raises(EngineError, match="float32") as caught:
            resolve_dtype(name, checkpoint)
        assert caught.value.param == "dtype"


def test_hardware_threads_of_one_core_count_once() -> None:
    assert 1 <= physical_cores() <= torch.multiprocessing.cpu_count()


def test_a_summary_says_where_layers_are() -> None:
    one = AttentionSpec(0, 1, 1, 8, 8, 1.0, None, None, torch.float32, torch.device("cpu"))
    other = replace(one, device=torch.device("meta"))
    assert placement_summary((one, one)) == "cpu"
    assert placement_summary((one, one, other)) == "cpu (2 layers), meta (1 layers)"
