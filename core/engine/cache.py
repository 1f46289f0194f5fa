"""Keys and values of one batch, in buffers that grow by blocks and are written in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

    from ..registry.facts import ModelConfig

BLOCK_TOKENS = 64
"""Buffers hold a multiple of this many tokens."""
GROWTH = 1.5
"""A full buffer grows by this factor, so that a long answer is copied a constant number of times."""


class ContiguousLayerCache:
    """Keys and values of one layer, in buffers [B, capacity, K, D].

    What is handed out is a view of a buffer: the C++ attention reads it where it is, so a step copies its own token
    and nothing else.
    """

    def __init__(self, reserve: int) -> None:
        """Start empty; the first block of memory has room for ``reserve`` tokens."""
        self.length = 0
        self._reserve = reserve
        self._buffers: tuple[Tensor, Tensor] | None = None

    def extend(self, k_BSKD: Tensor, v_BSKD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return all keys and values so far, [B, T, K, D] each.

        The first call returns its arguments; later ones return views, valid until the next call.
        """
        start, self.length = self.length, self.length + k_BSKD.shape[1]
        if self._buffers is None:
            capacity = max(self.length, self._reserve)
            self._buffers = _empty(k_BSKD, capacity), _empty(v_BSKD, capacity)
        elif self.length > self._buffers[0].shape[1]:
            capacity = max(self.length, int(self._buffers[0].shape[1] * GROWTH))
            self._buffers = _grown(self._buffers[0], start, capacity), _grown(self._buffers[1], start, capacity)
        keys, values = self._buffers
        keys[:, start : self.length] = k_BSKD
        values[:, start : self.length] = v_BSKD
        if start == 0:
            return k_BSKD, v_BSKD
        return keys[:, : self.length], values[:, : self.length]

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``."""
        self.length = length

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order; a row may be repeated (int64 [rows])."""
        if self._buffers is not None:
            keys, values = (paddle.index_select(buffer, rows, axis=0) for buffer in self._buffers)
            self._buffers = keys, values


class ContiguousCache:
    """Keys and values of all layers of one batch, whose rows all have the same number of tokens (``Cache``)."""

    def __init__(self, config: ModelConfig, *, reserve: int = BLOCK_TOKENS) -> None:
        """Start empty.

        Args:
            config: says how many layers there are.
            reserve: tokens that the first allocation has room for.
        """
        self._layers = [ContiguousLayerCache(reserve) for _ in range(config.num_layers)]

    @property
    def length(self) -> int:
        """Tokens held before the current forward pass."""
        return self._layers[-1].length

    def layer(self, index: int) -> ContiguousLayerCache:
        """Return the cache of block ``index``."""
        return self._layers[index]

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``."""
        for layer in self._layers:
            layer.truncate(length)

    def reorder(self, rows: Sequence[int]) -> None:
        """Keep ``rows`` in this order: drops finished rows, or lets a beam go on from another's keys and values."""
        index = paddle.to_tensor(list(rows), dtype="int64")
        for layer in self._layers:
            layer.select(index)


def _empty(like_BSKD: Tensor, capacity: int) -> Tensor:
    B, _, K, D = like_BSKD.shape
    return paddle.zeros([B, -(-capacity // BLOCK_TOKENS) * BLOCK_TOKENS, K, D], dtype=like_BSKD.dtype)


def _grown(buffer: Tensor, length: int, capacity: int) -> Tensor:
    grown = _empty(buffer, capacity)
    grown[:, :length] = buffer[:, :length]
    return grown
