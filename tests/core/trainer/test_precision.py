from __future__ import annotations

import logging

import pytest

from llm_run.core.config.training import TrainingOptions
from llm_run.core.trainer.precision import Precision


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_sixteen_bits_on_a_cpu_are_float32_and_say_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llm_run.trainer"):
        precision = Precision(TrainingOptions(**{name: True}))
    assert precision.dtype == "float32"
    assert precision.scale.value == 1.0
    assert caplog.messages == [f"{name}: a CPU computes in float32 only, so float32 it is"]
