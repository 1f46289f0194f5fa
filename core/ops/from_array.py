"""NumPy arrays as tensors, without what ``paddle.to_tensor`` leaves behind."""

from __future__ import annotations

import numpy as np
import paddle


def from_array(array: np.ndarray) -> paddle.Tensor:
    """Return a copy of an array as a tensor of the same shape and type, on the device in use (a constant in a graph).

    For what runs many times a second for weeks: each ``paddle.to_tensor`` of Paddle 3.3.1 keeps a dictionary and 120
    bytes for ever (an engine that decodes would grow by hundreds of megabytes an hour), as does every other way into
    ``Tensor.__init__``. A tensor that an operator made, filled afterwards, keeps nothing, and is no slower.
    """
    if not paddle.in_dynamic_mode() or paddle.device.get_device() != "cpu":
        return paddle.to_tensor(array)
    tensor = paddle.empty([0], dtype=array.dtype.name)  # type: ignore[arg-type]
    tensor.get_tensor().set(np.ascontiguousarray(array), paddle.CPUPlace())
    return tensor
