"""Arrays become tensors that hold the same, and nothing stays behind."""

from __future__ import annotations

import gc

import numpy as np
import paddle
import pytest

from llm_run.core.ops.from_array import from_array

ARRAYS = {
    "numbers": np.arange(24, dtype=np.int64).reshape(2, 3, 4),
    "floats": np.linspace(-1, 1, 7, dtype=np.float32),
    "doubles": np.linspace(-1, 1, 7),
    "small numbers": np.arange(5, dtype=np.int32),
    "codes": np.arange(-5, 5, dtype=np.int8),
    "packed codes": np.arange(200, dtype=np.uint8),
    "flags": np.array([[True, False, True]]),
    "every second": np.arange(10, dtype=np.int64)[::2],
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "nothing": np.zeros((0, 3), dtype=np.int64),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_a_tensor_holds_what_the_array_held(array: np.ndarray) -> None:
    expected, made = paddle.to_tensor(array), from_array(array)
    assert made.dtype == expected.dtype and list(made.shape) == list(array.shape) and made.stop_gradient
    np.testing.assert_array_equal(made.numpy(), array)


def test_the_array_may_change_afterwards() -> None:
    array = np.zeros(4, dtype=np.float32)
    made = from_array(array)
    array += 1
    assert made.numpy().tolist() == [0, 0, 0, 0]


def test_no_object_stays_behind() -> None:
    array = np.arange(3)
    from_array(array)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(500):
        from_array(array)
    gc.collect()
    assert len(gc.get_objects()) - before < 50
