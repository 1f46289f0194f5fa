"""Tensors that lie one after the other in a flat one, so that they are sent at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import paddle

if TYPE_CHECKING:
    from paddle import Tensor


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of all values, one tensor after the other."""
    flat: Tensor = paddle.concat([tensor.flatten() for tensor in tensors])
    return flat


def unflattened(flat: Tensor, shapes: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Yield tensors that lie one after the other in ``flat``, without copying them."""
    at = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        yield flat._slice(at, at + size).reshape(list(shape)) if size else paddle.zeros(list(shape))
        at += size
