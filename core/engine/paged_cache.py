"""Keys and values of all sequences, in blocks of one buffer a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import paddle

from ..ops.from_array import from_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

    from ..registry.facts import ModelConfig


class Store(Protocol):
    """Where the keys and values of all tokens lie, each in a slot."""

    num_slots: int

    def extend(self, layer: int, written: Tensor, read: Tensor, k_SKD: Tensor, v_SKD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of a layer into their slots, and return those of other slots [T, K, D].

        Args:
            layer: index of the block.
            written: int64 [S], where the new ones go.
            read: int64 [T], what is read, the new ones included.
            k_SKD: keys.
            v_SKD: values; their heads may differ in size from the keys'.
        """


class PagedStore:
    """The buffers: [slots, K, D] for the keys and for the values of each layer."""

    def __init__(self, config: ModelConfig, num_slots: int) -> None:
        """Reserve the memory; the heads' sizes are those of the first keys and values that come."""
        self.num_slots = num_slots
        self._buffers: list[tuple[Tensor, Tensor] | None] = [None] * config.num_layers

    def buffers(self, layer: int, k_SKD: Tensor, v_SKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the buffers of a layer, which are made for the first keys and values, of their type and shape."""
        found = self._buffers[layer]
        if found is None:
            found = (
                paddle.zeros([self.num_slots, *k_SKD.shape[1:]], dtype=k_SKD.dtype),
                paddle.zeros([self.num_slots, *v_SKD.shape[1:]], dtype=v_SKD.dtype),
            )
            self._buffers[layer] = found
        return found

    def extend(self, layer: int, written: Tensor, read: Tensor, k_SKD: Tensor, v_SKD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values, and return those of all sequences (``Store``)."""
        out = []
        for buffer, new in zip(self.buffers(layer, k_SKD, v_SKD), (k_SKD, v_SKD), strict=True):
            kept = _movable(buffer)
            paddle.scatter_(kept, written, _movable(new.astype(buffer.dtype).contiguous()))
            found = paddle.index_select(kept, read, axis=0)
            out.append(found.view(buffer.dtype).astype(new.dtype))
        return out[0], out[1]


def _movable(numbers: Tensor) -> Tensor:
    """Return the same memory as a type that Paddle can scatter on a CPU: float16, of an even size, two by two."""
    return numbers.view(paddle.int32) if numbers.dtype == paddle.float16 else numbers


class StepCache:
    """What one forward pass over a packed row writes and reads (``Cache``)."""

    def __init__(self, store: Store, written: np.ndarray, read: np.ndarray, num_shared: int) -> None:
        """Plan the pass.

        Args:
            store: of the engine.
            written: int64, slots of the new tokens, in the order of the row.
            read: int64, slots of all keys, sequence after sequence, the new tokens included.
            num_shared: of each sequence's keys, those of a tuned prefix, which come first.
        """
        self.store, self._num_shared = store, num_shared
        self.written, self.read = from_array(written), from_array(read)

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
        step = self._step
        k_TKD, v_TKD = step.store.extend(self._index, step.written, step.read, k_1SKD[0], v_1SKD[0])
        return k_TKD.unsqueeze(0), v_TKD.unsqueeze(0)


def slots(blocks: np.ndarray | Sequence[int], start: int, stop: int, block_tokens: int) -> np.ndarray:
    """Return where the tokens from ``start`` to ``stop`` of a sequence lie (int64)."""
    at = np.arange(start, stop)
    return np.asarray(blocks, dtype=np.int64)[at // block_tokens] * block_tokens + at % block_tokens
