from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle.incubate.nn import functional as fused

from llm_run.core.ops import RotarySpec, apply_rotary, rotary_tables


def documented_rotary(
    q: Any, k: Any = None, v: Any = None, sin: Any = None, cos: Any = None, position_ids: Any = None,
    use_neox_rotary_style: bool = True,
) -> Any:  # fmt: skip
    """``[1, S, 1, D]`` tables; "neox" turns neighbours (measured on a GPU by PaddleNLP, see its fused rope tests)."""
    assert k is None and v is None and position_ids is None
    assert list(sin.shape) == list(cos.shape) == [1, q.shape[1], 1, q.shape[3]]
    x = q.numpy()
    if use_neox_rotary_style:
        turned = np.stack([-x[..., 1::2], x[..., 0::2]], axis=-1).reshape(x.shape)
    else:
        half = x.shape[-1] // 2
        turned = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    return paddle.to_tensor(x * cos.numpy() + turned * sin.numpy()), None, None


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize(("rotated", "rows"), [(8, 2), (4, 1)])
def test_tables_are_spread_as_the_kernel_reads_them(
    on_gpu: None, stand_in: Any, plain_too: Any, random: Any, style: Any, rotated: int, rows: int
) -> None:
    called = stand_in(fused, "fused_rotary_position_embedding", documented_rotary)
    x = paddle.to_tensor(random(2, 5, 3, 8))
    positions = paddle.to_tensor(np.array([[0, 1, 2, 3, 4], [7, 8, 0, 1, 30]])[:rows])
    tables = rotary_tables(RotarySpec(rotated), positions)
    found, expected = plain_too(lambda: apply_rotary(x, tables, style=style))
    assert called == ["fused_rotary_position_embedding"]
    np.testing.assert_allclose(found, expected, atol=2e-6)
