"""Layers that hold one rank's part of a matrix, under the parameter names of the layers that they replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F
from paddle import nn

from ..differentiable import reduce_then_copy

if TYPE_CHECKING:
    from paddle import Tensor

    from ..groups import Group
    from .crossing import Entrance, Exit


class ColumnLinear(nn.Layer):
    """A matrix of which each rank has some columns, and as many entries of the bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None, entrance: Entrance | None) -> None:
        """Take the rank's parameters.

        Args:
            weight: [in, out of this rank].
            bias: [out of this rank].
            entrance: through which the input comes; ``None`` where the caller has brought it in already (the head).
        """
        super().__init__()
        self.weight, self.bias = weight, bias
        self._entrance = entrance
        if entrance is not None:
            entrance.num_readers += 1

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.enter(x, training=self.training), self.weight, self.bias)

    def enter(self, x: Tensor, *, training: bool) -> Tensor:
        """Return the input as the rank's columns read it."""
        return x if self._entrance is None else self._entrance(x, training=training)


class RowLinear(nn.Layer):
    """A matrix of which each rank has some rows; the bias is whole on each, and added once, to the sum."""

    def __init__(self, weight: Tensor, bias: Tensor | None, leave: Exit) -> None:
        """Take the rank's parameters and the exit that sums the ranks' products."""
        super().__init__()
        self.weight, self.bias = weight, bias
        self._exit = leave

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.linear(x, self.weight))

    def leave(self, part: Tensor) -> Tensor:
        """Return the sum of all ranks' products, with the bias."""
        out = self._exit(part)
        return out if self.bias is None else out + self.bias.astype(out.dtype)


class VocabularyEmbedding(nn.Layer):
    """An embedding of which each rank has the rows of some tokens."""

    def __init__(self, weight: Tensor, first_token: int, group: Group) -> None:
        """Take the rank's rows, of ``first_token`` and those behind it."""
        super().__init__()
        self.weight = weight
        self._first, self._group = first_token, group

    def forward(self, ids_BS: Tensor) -> Tensor:
        local_BS = ids_BS - self._first
        is_mine_BS = paddle.logical_and(local_BS >= 0, local_BS < self.weight.shape[0])
        rows_BSH = F.embedding(paddle.where(is_mine_BS, local_BS, paddle.zeros_like(local_BS)), self.weight)
        return reduce_then_copy(rows_BSH * is_mine_BS.unsqueeze(-1).astype(rows_BSH.dtype), self._group)
