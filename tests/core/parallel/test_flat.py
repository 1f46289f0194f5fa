from __future__ import annotations

import numpy as np
import paddle

from llm_run.core.parallel.flat import unflattened


def test_tensors_in_a_flat_one_are_views_of_it() -> None:
    flat = paddle.arange(10).astype("float32")
    first, empty, second = unflattened(flat, [[2, 3], [0, 5], [4]])
    np.testing.assert_array_equal(first.numpy(), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(second.numpy(), [6, 7, 8, 9])
    assert empty.shape == [0, 5]
    assert second.data_ptr() - flat.data_ptr() == 6 * 4
