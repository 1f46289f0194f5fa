"""Runs the model over one batch of left-padded rows: the prompts first, then one token a step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..errors import LlmRunError
from ..ops.mask import AttentionMask
from .cache import ContiguousCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paddle import Tensor

    from ..causal_lm import CausalLM


class BatchRunner:
    """A batch on its way through the model.

    Rows are padded on the left, so that every row's newest token stands in the last column. Padding belongs to
    segment 0, which no token of a prompt sees.
    """

    def __init__(self, model: CausalLM, prompts: Sequence[Sequence[int]], *, reserve: int = 0) -> None:
        """Lay out the prompts.

        Args:
            model: the network.
            prompts: token ids, at least one each.
            reserve: tokens that will probably be generated; the cache is made that much larger.
        """
        width = max(len(prompt) for prompt in prompts)
        self._model = model
        self._ids_BT = np.zeros((len(prompts), width), dtype=np.int64)
        self._segments_BT = np.zeros((len(prompts), width), dtype=np.int32)
        for row, prompt in enumerate(prompts):
            self._ids_BT[row, width - len(prompt) :] = prompt
            self._segments_BT[row, width - len(prompt) :] = 1
        self._prefix_BT = self._segments_BT > 0
        self._cache = ContiguousCache(model.config, reserve=width + reserve)

    def prefill(self) -> Tensor:
        """Run the prompts and return the logits of the next token, float32 [B, V].

        Raises:
            LlmRunError: the logits are not finite, so that whatever followed would be garbage.
        """
        logits_BV = self._forward(self._ids_BT.shape[1])
        if not paddle.isfinite(logits_BV).all().item():
            raise LlmRunError(
                "the model's logits hold NaN or infinity: its weights are damaged or do not fit its configuration. "
                "Check the files of --model_name_or_path."
            )
        return logits_BV

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row, run it, and return the logits of the next one, float32 [B, V]."""
        self._ids_BT = np.concatenate([self._ids_BT, np.asarray(tokens, dtype=np.int64)[:, None]], axis=1)
        edge = ((0, 0), (0, 1))
        self._segments_BT = np.pad(self._segments_BT, edge, constant_values=1)
        self._prefix_BT = np.pad(self._prefix_BT, edge, constant_values=False)
        return self._forward(1)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with the given rows only, in this order; a row may be repeated."""
        index = list(rows)
        if index == list(range(len(self._ids_BT))):
            return
        self._ids_BT, self._segments_BT = self._ids_BT[index], self._segments_BT[index]
        self._prefix_BT = self._prefix_BT[index]
        self._cache.reorder(index)

    def _forward(self, num_queries: int) -> Tensor:
        config = self._model.config
        prefix_BT = self._prefix_BT if config.prefix_lm else None
        positions = config.positions(self._ids_BT, self._segments_BT, prefix_BT)[..., -num_queries:]
        with inference(self._model):
            hidden_BSH = self._model(
                paddle.to_tensor(self._ids_BT[:, -num_queries:]),
                paddle.to_tensor(np.ascontiguousarray(positions)),
                self._mask(),
                self._cache,
            )
            return self._model.head(hidden_BSH[:, -1]).cast("float32")

    def _mask(self) -> AttentionMask:
        # Rows without padding need no segments, and attention has a cheaper way for them.
        is_padded = not self._segments_BT.all()
        return AttentionMask(
            segments_BT=paddle.to_tensor(self._segments_BT) if is_padded else None,
            prefix_BT=paddle.to_tensor(self._prefix_BT) if self._model.config.prefix_lm else None,
        )


@contextmanager
def inference(model: CausalLM) -> Iterator[None]:
    """Record no gradients and use no dropout; the model is left as it was."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with paddle.no_grad():
            yield
    finally:
        if was_training:
            model.train()
