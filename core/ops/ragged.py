"""Attention of several sequences in one row, each over its own keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import paddle

from .mask import AttentionMask

if TYPE_CHECKING:
    from paddle import Tensor

    from .mask import Attend


@dataclass(frozen=True, slots=True)
class RaggedItem:
    """One sequence of a step."""

    num_queries: int
    num_keys: int
    """The queries are the last of them."""
    mask: AttentionMask
    """Of this sequence alone, as if it were a batch of one row."""


@dataclass(frozen=True, slots=True)
class RaggedMask:
    """Sequences one after the other in a batch of one row: queries of all, and keys of all, in the same order."""

    items: tuple[RaggedItem, ...]

    def attend(
        self,
        q_1SND: Tensor,
        k_1TKD: Tensor,
        v_1TKD: Tensor,
        act: Attend,
    ) -> Tensor:
        """Return the outputs [1, S, N, D] of ``act`` on each sequence alone."""
        outs, key = [], 0
        for item, q_1SND_part in zip(self.items, self.parts(q_1SND), strict=True):
            k, v = (x[:, key : key + item.num_keys] for x in (k_1TKD, v_1TKD))
            outs.append(act(q_1SND_part, k, v, item.mask))
            key += item.num_keys
        joined: Tensor = outs[0] if len(outs) == 1 else paddle.concat(outs, axis=1)
        return joined

    def parts(self, x_1S: Tensor) -> Iterator[Tensor]:
        """Yield the queries' part of a tensor [1, S, ...] for each sequence."""
        begin = 0
        for item in self.items:
            yield x_1S[:, begin : begin + item.num_queries]
            begin += item.num_queries

    def preceded(self, num_keys: int, change: Callable[[AttentionMask, int], AttentionMask]) -> RaggedMask:
        """Return the mask with so many keys before those of each sequence, and its own mask changed for them."""
        items = [
            replace(item, num_keys=item.num_keys + num_keys, mask=change(item.mask, num_keys)) for item in self.items
        ]
        return RaggedMask(tuple(items))

    def changed(self, change: Callable[[AttentionMask, Tensor], AttentionMask], x_1S: Tensor) -> RaggedMask:
        """Return the mask with each sequence's own changed, given its part of a tensor [1, S, ...]."""
        items = [
            replace(item, mask=change(item.mask, part)) for item, part in zip(self.items, self.parts(x_1S), strict=True)
        ]
        return RaggedMask(tuple(items))
