"""How often ranks talk to each other in a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
import pytest

from llm_run.core.ops import AttentionMask
from llm_run.core.parallel.groups import alone
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.tensor import crossing
from llm_run.core.parallel.tensor.apply import parallelize

from .cases import cases
from .conftest import drawn


def test_matrices_that_read_one_input_share_one_communication(
    lonely_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, config = cases()["llama-tiny"]
    rules = family.sharding_map(config)
    assert rules is not None
    counts = {"copy_then_reduce": 0, "reduce_then_copy": 0}

    def counted(name: str) -> Callable[..., Any]:
        def call(x: paddle.Tensor, group: Any) -> paddle.Tensor:
            counts[name] += 1
            return x

        return call

    for name in counts:
        monkeypatch.setattr(crossing, name, counted(name))
    block = parallelize(drawn("llama-tiny"), rules, lonely_mesh(2, 0)).blocks[0]
    hidden_BSH = paddle.ones([1, 4, 64])
    context = drawn("llama-tiny").context(paddle.arange(4).unsqueeze(0), AttentionMask())
    for times in (1, 2):
        block(hidden_BSH, context)
        assert counts == {"copy_then_reduce": 2 * times, "reduce_then_copy": 2 * times}


def test_an_entrance_keeps_nothing_once_all_have_read() -> None:
    entrance = crossing.Entrance(alone("mp"), None, sequence_parallel=False)
    entrance.num_readers = 2
    x = paddle.ones([1, 2, 3])
    first, second = entrance(x, training=True), entrance(x, training=True)
    assert first is second
    assert entrance._seen is None and entrance._inside is None
