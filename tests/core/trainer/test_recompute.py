from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.data.collate import collate
from llm_run.core.ops import linear_cross_entropy, prefer
from llm_run.core.trainer.inputs import to_inputs
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.recompute import apply_recompute


@pytest.fixture
def plain_attention() -> Iterator[None]:
    """The C++ kernel keeps no scores, so that there would be nothing to forget."""
    prefer("attention", "plain")
    yield
    prefer("attention", "auto")


def gradients(family: Any, config: Any, rows: Any, granularity: str, dropout: float = 0.0) -> dict[str, np.ndarray]:
    seed_all(1)
    model = family.build_model(config)
    model.train()
    if dropout:
        for block in model.blocks:
            block.attention.o_proj = paddle.nn.Sequential(block.attention.o_proj, paddle.nn.Dropout(dropout))
    if granularity:
        apply_recompute(model, granularity)
    inputs = to_inputs(collate([rows(length=32).sample(k) for k in range(2)], config, 0), config)
    hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
    linear_cross_entropy(hidden_BSH, model.head, inputs.labels_BS)[0].backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("granularity", ["full", "full_attn", "core_attn"])
@pytest.mark.usefixtures("plain_attention")
def test_gradients_are_the_same_to_the_bit(
    family: Any, model_config: Any, rows: Any, granularity: str, dropout: float
) -> None:
    expected = gradients(family, model_config, rows, "", dropout)
    found = gradients(family, model_config, rows, granularity, dropout)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_array_equal(found[name], gradient, err_msg=name)


@pytest.mark.parametrize("granularity", ["full", "full_attn", "core_attn"])
@pytest.mark.usefixtures("plain_attention")
def test_less_memory_is_held_until_the_backward_pass(
    family: Any, model_config: Any, rows: Any, granularity: str
) -> None:
    def held(granularity: str) -> int:
        model = family.build_model(model_config)
        model.train()
        if granularity:
            apply_recompute(model, granularity)
        inputs = to_inputs(collate([rows(length=128).sample(0)], model_config, 0), model_config)
        gc.collect()
        before = paddle.base.core.host_memory_stat_current_value("Allocated", 0)
        hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
        gc.collect()
        after = paddle.base.core.host_memory_stat_current_value("Allocated", 0)
        return int(after - before - hidden_BSH.size * 4)

    assert held(granularity) < 0.8 * held("")
