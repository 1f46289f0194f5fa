"""Runs the model over one batch of left-padded rows: the prompts first, then one token a step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
import paddle

from ..causal_lm import CausalLM
from ..errors import LlmRunError
from ..ops.from_array import from_array
from ..ops.mask import AttentionMask
from ..parallel.tensor.logits import whole_logits
from .cache import ContiguousCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paddle import Tensor

    from ..registry.facts import ModelConfig


class Batch(Protocol):
    """Keys and values of some rows, and what computes new tokens from them."""

    def forward(
        self, ids_BS: np.ndarray, positions: np.ndarray, segments_BT: np.ndarray, prompt_BT: np.ndarray | None
    ) -> Tensor:
        """Append the new tokens and return the logits of what follows the last one, float32 [B, V].

        Args:
            ids_BS: int64 token ids.
            positions: int64 [B, S] or [B, 2, S].
            segments_BT: of all T tokens so far: 0 for padding, 1 for text.
            prompt_BT: True for tokens of prompts that see themselves both ways; ``None``: the model has none.
        """

    def reorder(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in this order; a row may be repeated."""


class BatchModel(Protocol):
    """A model that is no network here (an exported graph) and computes batches in its own way."""

    @property
    def config(self) -> ModelConfig:
        """Its shape."""

    def begin(self, num_rows: int) -> Batch:
        """Return an empty batch of so many rows."""


class BatchRunner:
    """A batch on its way through the model.

    Rows are padded on the left, so that every row's newest token stands in the last column. Padding belongs to
    segment 0, which no token of a prompt sees.
    """

    def __init__(self, model: CausalLM | BatchModel, prompts: Sequence[Sequence[int]], *, reserve: int = 0) -> None:
        """Lay out the prompts.

        Args:
            model: the network, or an exported one.
            prompts: token ids, at least one each.
            reserve: tokens that will probably be generated; the cache is made that much larger.
        """
        width = max(len(prompt) for prompt in prompts)
        self._config = model.config
        self._ids_BT = np.zeros((len(prompts), width), dtype=np.int64)
        self._segments_BT = np.zeros((len(prompts), width), dtype=np.int32)
        for row, prompt in enumerate(prompts):
            self._ids_BT[row, width - len(prompt) :] = prompt
            self._segments_BT[row, width - len(prompt) :] = 1
        self._prefix_BT = self._segments_BT > 0
        self._batch: Batch = (
            _NetworkBatch(model, width + reserve) if isinstance(model, CausalLM) else model.begin(len(prompts))
        )

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
        self._batch.reorder(index)

    def _forward(self, num_queries: int) -> Tensor:
        prompt_BT = self._prefix_BT if self._config.prefix_lm else None
        positions = self._config.positions(self._ids_BT, self._segments_BT, prompt_BT)[..., -num_queries:]
        new_ids_BS = self._ids_BT[:, -num_queries:]
        return self._batch.forward(new_ids_BS, np.ascontiguousarray(positions), self._segments_BT, prompt_BT)


class _NetworkBatch:
    """The keys and values of a network that computes operator by operator (``Batch``)."""

    def __init__(self, model: CausalLM, reserve: int) -> None:
        self._model, self._cache = model, ContiguousCache(model.config, reserve=reserve)

    def forward(
        self, ids_BS: np.ndarray, positions: np.ndarray, segments_BT: np.ndarray, prompt_BT: np.ndarray | None
    ) -> Tensor:
        # Rows without padding need no segments, and attention has a cheaper way for them.
        is_padded = not segments_BT.all()
        mask = AttentionMask(
            segments_BT=from_array(segments_BT) if is_padded else None,
            prefix_BT=None if prompt_BT is None else from_array(prompt_BT),
        )
        with inference(self._model):
            hidden_BSH = self._model(from_array(ids_BS), from_array(positions), mask, self._cache)
            return whole_logits(self._model, hidden_BSH[:, -1]).cast("float32")

    def reorder(self, rows: Sequence[int]) -> None:
        self._cache.reorder(rows)


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
