"""Keys and values of all sequences, in blocks of one buffer a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

    from ..registry.facts import ModelConfig


class PagedStore:
    """The buffers: [slots, K, D] for the keys and for the values of each layer."""

    def __init__(self, config: ModelConfig, num_slots: int) -> None:
        """Reserve the memory; the heads' sizes are those of the first keys and values that come."""
        self.num_slots = num_slots
        self._buffers: list[tuple[Tensor, Tensor] | None] = [None] * config.num_layers

    def buffers(self, layer: int, k_1SKD: Tensor, v_1SKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the buffers of a layer, which are made for the first keys and values."""
        found = self._buffers[layer]
        if found is None:
            found = (
                paddle.zeros([self.num_slots, *k_1SKD.shape[2:]], dtype=k_1SKD.dtype),
                paddle.zeros([self.num_slots, *v_1SKD.shape[2:]], dtype=v_1SKD.dtype),
            )
            self._buffers[layer] = found
        return found


class StepCache:
    """What one forward pass over a packed row writes and reads (``Cache``)."""

    def __init__(self, store: PagedStore, written: np.ndarray, read: np.ndarray, num_shared: int) -> None:
        """Plan the pass.

        Args:
            store: of the engine.
            written: int64, slots of the new tokens, in the order of the row.
            read: int64, slots of all keys, sequence after sequence, the new tokens included.
            num_shared: of each sequence's keys, those of a tuned prefix, which come first.
        """
        self.store, self._num_shared = store, num_shared
        self.written, self.read = paddle.to_tensor(written), paddle.to_tensor(read)

    @property
    def length(self) -> int:
        """A tuned prefix is held already; the rest differs by sequence, and positions are given to the model."""
        return self._num_shared

    def layer(self, index: int) -> _StepLayerCache:
        """Return the cache of block ``index``."""
        return _StepLayerCache(self, index)


class _StepLayerCache:
    def __init__(self, step: StepCache, index: int) -> None:
        self._step, self._index = step, index

    def extend(self, k_1SKD: Tensor, v_1SKD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values, and return those of all sequences [1, T, K, D]."""
        out = []
        for buffer, new in zip(self._step.store.buffers(self._index, k_1SKD, v_1SKD), (k_1SKD, v_1SKD), strict=True):
            paddle.scatter_(buffer, self._step.written, new[0].contiguous())
            out.append(paddle.index_select(buffer, self._step.read, axis=0).unsqueeze(0))
        return out[0], out[1]


def slots(blocks: Sequence[int], start: int, stop: int, block_tokens: int) -> np.ndarray:
    """Return where the tokens from ``start`` to ``stop`` of a sequence lie (int64)."""
    at = np.arange(start, stop)
    return np.asarray(blocks, dtype=np.int64)[at // block_tokens] * block_tokens + at % block_tokens
