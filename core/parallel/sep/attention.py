"""Attention of rows whose tokens lie on several ranks: all tokens of some heads instead of some tokens of all heads.

Shape letters: B batch, S tokens of the whole row, P tokens of one rank, T keys, N query heads, K key/value heads,
D head size.

Source: Jacobs et al. 2023, arXiv:2309.14509, section 3.1 (DeepSpeed-Ulysses).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paddle

from ..differentiable import exchange

if TYPE_CHECKING:
    from paddle import Tensor

    from ...ops.mask import Attend, AttentionMask
    from ..groups import Group

SEQUENCE_DIM, HEAD_DIM = 1, 2


@dataclass(frozen=True, slots=True)
class SharedRowMask:
    """Rows that the ranks of a group share: the first rank has the first tokens, and each has as many."""

    whole: AttentionMask
    """Of the whole rows; every rank knows it."""
    group: Group

    def attend(self, q_BPND: Tensor, k_BPKD: Tensor, v_BPKD: Tensor, act: Attend) -> Tensor:
        """Return the outputs [B, P, N, D] of this rank's tokens.

        Each rank gets the whole rows of its share of the heads, and gives the outputs back where their tokens belong.
        Where key/value heads do not divide among the ranks, each is sent to every rank whose queries read it. Keys and
        values that stand before all rows (a tuned prefix) every rank has already.

        Raises:
            DistributedError: a rank has gone, is late, or came with another shape.
        """
        num_kv_heads = k_BPKD.shape[HEAD_DIM]
        copies = math.lcm(num_kv_heads, self.group.size) // num_kv_heads
        if copies > 1:
            k_BPKD, v_BPKD = (paddle.repeat_interleave(x, copies, axis=HEAD_DIM) for x in (k_BPKD, v_BPKD))
        q_BSND, k_BTKD, v_BTKD = self._whole_rows(q_BPND), self._whole_keys(k_BPKD), self._whole_keys(v_BPKD)
        out_BSND = act(q_BSND, k_BTKD, v_BTKD, self.whole, self._own_heads(q_BPND))
        return exchange(out_BSND, self.group, split_dim=SEQUENCE_DIM, join_dim=HEAD_DIM)

    def _whole_rows(self, x_BPND: Tensor) -> Tensor:
        """Return all tokens of this rank's heads."""
        return exchange(x_BPND, self.group, split_dim=HEAD_DIM, join_dim=SEQUENCE_DIM)

    def _whole_keys(self, x_BPKD: Tensor) -> Tensor:
        """Return the same of keys or values, some of which may be shared."""
        count = self.whole.num_shared
        if not count:
            return self._whole_rows(x_BPKD)
        shared = x_BPKD[:, :count, self._own_heads(x_BPKD)]
        return paddle.concat([shared, self._whole_rows(x_BPKD[:, count:])], axis=SEQUENCE_DIM)

    def _own_heads(self, x_BPND: Tensor) -> slice:
        """Return which heads this rank gets."""
        count = x_BPND.shape[HEAD_DIM] // self.group.size
        return slice(self.group.index * count, (self.group.index + 1) * count)
