from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import ModelPart, matrix_sizes
from llm_run.core.trainer.flops import ModelFlops, measure_peak


@pytest.mark.parametrize(("size", "head"), [("tiny", 512 * 64), ("tiny-tied", 512 * 64)])
def test_flops_are_six_per_matrix_entry_and_token_and_twelve_for_attention(family: Any, size: str, head: int) -> None:
    config = family.card.sizes[size]
    kv_width = config.num_kv_heads * 16
    block = 64 * 64 + 2 * 64 * kv_width + 64 * 64 + 3 * 64 * 176
    per_token = 6 * (4 * block + head) + 12 * 4 * 64 * 128
    matrices = matrix_sizes(ModelPart(family.build_model(config)), Mesh())
    assert ModelFlops(matrices, config).of_batch(3, 128) == 3 * 128 * per_token


def test_the_peak_is_that_of_a_machine_of_this_century() -> None:
    assert 1e8 < measure_peak("float32") < 1e16
