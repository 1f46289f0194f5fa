"""The shape that every family's network has: embed, blocks, finish, head."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import paddle

if TYPE_CHECKING:
    from paddle import Tensor

    from .adapters.prefix import Prefix
    from .ops.cross_entropy import SplitLoss
    from .ops.mask import AttentionMask, ComposedMask
    from .registry.facts import ModelConfig


class LayerCache(Protocol):
    """Keys and values of one layer, grown by every forward pass."""

    def extend(self, k_BSKD: Tensor, v_BSKD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return all keys and values so far, [B, T, K, D] each."""


class Cache(Protocol):
    """Keys and values of the whole model."""

    @property
    def length(self) -> int:
        """Tokens held before the current forward pass."""

    def layer(self, index: int) -> LayerCache:
        """Return the cache of block ``index``."""


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What every block of one forward pass reads; made once by ``CausalLM.context``."""

    mask: AttentionMask | ComposedMask
    rotary: tuple[Tensor, ...] = ()
    """Cosine and sine tables [B, S, ...], as the family's attention wants them; empty without rotary positions."""
    query_scale_BS: Tensor | None = None
    """Factor on the queries by position (logn attention)."""


class CausalLM(paddle.nn.Layer):
    """A decoder-only language model on one device.

    A family sets ``self.config`` and ``self.blocks`` (a ``LayerList`` whose members are called as
    ``block(hidden_BSH, context, layer_cache) -> hidden_BSH``) and writes the four methods below. Parallelism,
    adapters, recomputation and quantization are transformations applied from outside, by layer name. For their sake
    a layer leaves the number of heads to the shape of its projections, and keeps constants of query heads (ALiBi
    slopes) as an array ``slopes_N``.
    """

    config: ModelConfig
    blocks: paddle.nn.LayerList
    split_loss: SplitLoss | None = None
    """Computes losses where ``head`` returns the logits of some tokens of the vocabulary only (tensor parallel)."""

    prefix: Prefix | None
    """Keys and values that every token sees before its own (prefix tuning)."""

    def __init__(self) -> None:
        """Begin without a prefix."""
        super().__init__()
        self.prefix = None

    @abstractmethod
    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        """Return the hidden states [B, S, H] before the first block."""

    @abstractmethod
    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        """Prepare what all blocks share (rotary tables)."""

    @abstractmethod
    def finish(self, hidden_BSH: Tensor) -> Tensor:
        """Apply the final norm."""

    @abstractmethod
    def head(self, hidden_BSH: Tensor) -> Tensor:
        """Return logits [B, S, V] (or [T, V] for [T, H]). Separate, so that losses can be computed in chunks."""

    def forward(
        self, input_ids_BS: Tensor, positions: Tensor, mask: AttentionMask, cache: Cache | None = None
    ) -> Tensor:
        """Return the final hidden states [B, S, H].

        Args:
            input_ids_BS: int64 token ids.
            positions: int64 [B, S], or [B, 2, S] for two-dimensional positions, from ``config.positions``.
            mask: what each token sees; with a cache it describes all T = cache.length + S keys.
            cache: extended in place; ``None`` in training.
        """
        if self.prefix is not None:
            positions, mask, cache = self.prefix.precede(positions, mask, cache)
        context = self.context(positions, mask)
        hidden_BSH = self.embed(input_ids_BS, positions)
        for index, block in enumerate(self.blocks):
            hidden_BSH = block(hidden_BSH, context, None if cache is None else cache.layer(index))
        return self.finish(hidden_BSH)
