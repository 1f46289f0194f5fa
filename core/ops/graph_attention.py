"""Attention in a static graph, in which the numbers of rows, of new tokens and of keys are open until it runs.

Shape letters: B rows, S new tokens, T keys, P new and cached tokens without shared keys, N heads, K key/value heads,
G heads that share one, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import paddle
import paddle.nn.functional as F

if TYPE_CHECKING:
    from paddle import Tensor

_HIDDEN = -1e30
"""Added to the score of a key that a query may not see; finite, so that no row of a softmax is NaN."""


@dataclass(frozen=True, slots=True)
class GraphMask:
    """``AttentionMask`` of a batch of rows that are padded on the left, as tensors whose sizes are not known.

    Queries are the last S of the P tokens. Shared keys (a tuned prefix) stand before those of all tokens.
    """

    text_BP: Tensor
    """int64: 0 for padding, 1 for a token."""
    num_queries: Tensor
    """S, a tensor without axes."""
    prompt_BS: Tensor | None = None
    """bool: True for new tokens of a prompt that sees itself both ways. Cached ones need none: all that follows a
    prompt sees the whole of it."""
    num_shared: int = 0
    _bias: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)
    """What ``bias`` returned, which every layer asks for."""

    def within(self, chosen_BS: Tensor) -> GraphMask:
        """Return the mask with a prompt of only those of its tokens that are chosen (bool)."""
        return (
            self if self.prompt_BS is None else replace(self, prompt_BS=paddle.logical_and(self.prompt_BS, chosen_BS))
        )

    def bias(self) -> Tensor:
        """Return 0 for a key that is seen and a large negative number for one that is not, float32 [B, S, T]."""
        if not self._bias:
            self._bias.append(self._make_bias())
        return self._bias[0]

    def distances(self) -> Tensor:
        """Return the position of each key less that of each query, float32 [B or 1, S, T].

        Shared keys stand right before the text of each row, behind its padding.
        """
        keys_P, queries_S1 = self._columns()
        distances_1SP = (keys_P - queries_S1).unsqueeze(0).astype("float32")
        if not self.num_shared:
            return distances_1SP
        padding_B11 = (self.text_BP == 0).astype("int64").sum(axis=1).unsqueeze([1, 2])
        shared = paddle.arange(-self.num_shared, 0, dtype="int64")
        moved_BSQ = (shared + padding_B11 - queries_S1).astype("float32")
        distances_BSP = paddle.expand(distances_1SP, [paddle.shape(self.text_BP)[0], -1, -1])
        return paddle.concat([moved_BSQ, distances_BSP], axis=-1)

    def _columns(self) -> tuple[Tensor, Tensor]:
        """Return the places of the tokens, and as a column those of the queries."""
        count = paddle.shape(self.text_BP)[1].astype("int64")
        return (
            paddle.arange(0, count, dtype="int64"),
            paddle.arange(count - self.num_queries, count, dtype="int64").unsqueeze(-1),
        )

    def _make_bias(self) -> Tensor:
        keys_P, queries_S1 = self._columns()
        before = paddle.shape(self.text_BP)[1].astype("int64") - self.num_queries
        is_text_BP = self.text_BP > 0
        seen_BSP = (keys_P <= queries_S1).unsqueeze(0)
        if self.prompt_BS is not None:
            cached = self.text_BP[:, :before] < 0  # False for all
            seen_BSP = seen_BSP | paddle.concat([cached, self.prompt_BS], axis=1).unsqueeze(1)
        asks_BS1 = is_text_BP[:, before:].unsqueeze(-1)
        own_1SP = (keys_P == queries_S1).unsqueeze(0)  # padding sees itself: a row without keys would be NaN
        seen_BSP = (seen_BSP & is_text_BP.unsqueeze(1) & asks_BS1) | own_1SP
        hidden_BST = 1.0 - seen_BSP.astype("float32")
        if self.num_shared:
            shared_BSQ = (1.0 - asks_BS1.astype("float32")).tile([1, 1, self.num_shared])
            hidden_BST = paddle.concat([shared_BSQ, hidden_BST], axis=-1)
        return hidden_BST * _HIDDEN


def graph_attention(
    q_BSND: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    mask: GraphMask,
    *,
    scale: float | None,
    slopes_N: np.ndarray | None,
) -> Tensor:
    """Return what ``attention`` does, composed of operators that need to know no size but those of the heads.

    Args:
        q_BSND: queries.
        k_BTKD: keys; K and D are known.
        v_BTKD: values, likewise.
        mask: who sees whom.
        scale: factor on the scores; D ** -0.5 where it is ``None``.
        slopes_N: of ALiBi.
    """
    num_kv_heads, head_dim = k_BTKD.shape[2:]
    scale = head_dim**-0.5 if scale is None else scale
    q_BKGSD = (q_BSND * scale).reshape([0, 0, num_kv_heads, -1, head_dim]).transpose([0, 2, 3, 1, 4])
    k_BK1DT = k_BTKD.transpose([0, 2, 3, 1]).unsqueeze(2)
    scores_BKGST = paddle.matmul(q_BKGSD, k_BK1DT).astype("float32") + mask.bias().unsqueeze([1, 2])
    if slopes_N is not None:
        slopes_1KG11 = paddle.to_tensor(slopes_N.reshape([1, num_kv_heads, -1, 1, 1]))
        scores_BKGST = scores_BKGST + slopes_1KG11 * mask.distances().unsqueeze([1, 2])
    weights = F.softmax(scores_BKGST, axis=-1).astype(v_BTKD.dtype)
    out_BKGSD = paddle.matmul(weights, v_BTKD.transpose([0, 2, 1, 3]).unsqueeze(2))
    out = out_BKGSD.transpose([0, 3, 1, 2, 4]).reshape([0, 0, -1, v_BTKD.shape[-1]])
    return cast("Tensor", out)
