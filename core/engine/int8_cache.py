"""Keys and values of all sequences in 8 bits, in blocks of one buffer a layer.

Shape letters: S new tokens, T tokens that are read, K key/value heads, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

if TYPE_CHECKING:
    from paddle import Tensor

    from ..registry.facts import ModelConfig

LARGEST_CODE = 127
SMALLEST_SCALE = 1e-12
"""A head of zeros is divided by this and not by 0."""


class Int8Store:
    """The buffers: codes [slots, K, D] and scales [slots, K] for the keys and for the values of each layer.

    Each head of each token has a scale of its own. What is kept of a token thus depends on that token alone: answers
    are the same in any batch, and blocks can be shared. Of D numbers, D + 4 bytes are kept instead of 4 D.
    """

    def __init__(self, config: ModelConfig, num_slots: int) -> None:
        """Reserve the memory; the heads' sizes are those of the first keys and values that come."""
        self.num_slots = num_slots
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, written: Tensor, read: Tensor, k_SKD: Tensor, v_SKD: Tensor) -> tuple[Tensor, Tensor]:
        """Round the new keys and values into their slots, and return those of all sequences (``Store``)."""
        return self._extend((layer, 0), written, read, k_SKD), self._extend((layer, 1), written, read, v_SKD)

    def bytes_per_token(self) -> int:
        """Return what a token takes in all layers that have been written, in bytes."""
        return sum(
            int(tensor.size * tensor.element_size()) // self.num_slots
            for pair in self._buffers.values()
            for tensor in pair
        )

    def _extend(self, place: tuple[int, int], written: Tensor, read: Tensor, x_SKD: Tensor) -> Tensor:
        if place not in self._buffers:
            heads = x_SKD.shape[1:]
            self._buffers[place] = (
                paddle.zeros([self.num_slots, *heads], dtype="int8"),
                paddle.zeros([self.num_slots, heads[0]], dtype="float32"),
            )
        codes, scales = self._buffers[place]
        new_codes_SKD, new_scales_SK = round_heads(x_SKD)
        # Of the ways to write and read rows, these are the ones that Paddle's CPU build has for int8.
        paddle.index_put_(codes, (written,), new_codes_SKD)
        paddle.index_put_(scales, (written,), new_scales_SK)
        found_TKD = paddle.gather(codes, read).astype("float32") * paddle.gather(scales, read).unsqueeze(-1)
        result_TKD: Tensor = found_TKD.astype(x_SKD.dtype)
        return result_TKD


def round_heads(x_SKD: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 codes [S, K, D] from -127 to 127, and what a code of 1 stands for, float32 [S, K]."""
    wide_SKD = x_SKD.astype("float32")
    scales_SK = (wide_SKD.abs().max(axis=-1) / LARGEST_CODE).clip(min=SMALLEST_SCALE)
    return paddle.round(wide_SKD / scales_SK.unsqueeze(-1)).astype("int8"), scales_SK
