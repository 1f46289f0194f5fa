"""Computes one step of the scheduler: all its tokens in one row, each sequence over its own blocks."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..adapters.switched import active_adapter
from ..ops.mask import AttentionMask
from ..ops.ragged import RaggedItem, RaggedMask
from .paged_cache import PagedStore, StepCache, slots
from .runner import inference

if TYPE_CHECKING:
    from ..adapters.prefix import Prefix
    from ..causal_lm import CausalLM
    from .scheduler import Work


class PagedRunner:
    """Runs any family: the model itself over a packed row, with keys and values gathered from the blocks."""

    def __init__(self, model: CausalLM, num_blocks: int, block_tokens: int) -> None:
        """Reserve the cache."""
        self._model = model
        self._block_tokens = block_tokens
        num_prefix = 0 if model.prefix is None else model.prefix.settings.num_tokens
        self.store = PagedStore(model.config, num_blocks * block_tokens + num_prefix)
        self._prefix_slots = np.arange(num_blocks * block_tokens, self.store.num_slots)
        """Where the keys and values of a tuned prefix lie, which every sequence reads before its own."""
        if model.prefix is not None:
            self._write_prefix(model.prefix)

    def run(self, works: Several[Work]) -> list[np.ndarray]:
        """Compute the tokens of each piece of work; those of one adapter together.

        Returns:
            For each, float32 logits [rows, V] of its last ``num_results`` tokens.
        """
        found: dict[int, np.ndarray] = {}
        for adapter in dict.fromkeys(work.sequence.request.adapter for work in works):
            mine = [place for place, work in enumerate(works) if work.sequence.request.adapter == adapter]
            with active_adapter(adapter):
                found.update(zip(mine, self._run([works[place] for place in mine]), strict=True))
        return [found[place] for place in range(len(works))]

    def _run(self, works: Several[Work]) -> list[np.ndarray]:
        ids = [np.array(work.new_ids, dtype=np.int64) for work in works]
        positions = [self._positions(work) for work in works]
        mask = RaggedMask(tuple(self._item(work) for work in works))
        cache = StepCache(
            self.store, self._slots(works, new=True), self._slots(works, new=False), len(self._prefix_slots)
        )
        with inference(self._model):
            hidden_1SH = self._model(
                paddle.to_tensor(np.concatenate(ids)[None]),
                paddle.to_tensor(np.ascontiguousarray(np.concatenate(positions, axis=-1))),
                mask,
                cache,
            )
            return self._logits(hidden_1SH[0], works)

    def _write_prefix(self, prefix: Prefix) -> None:
        with paddle.no_grad():
            keys, values = prefix.keys_and_values()
            cache = StepCache(self.store, self._prefix_slots, self._prefix_slots, 0)
            for index, (k_PKD, v_PKD) in enumerate(zip(keys, values, strict=True)):
                cache.layer(index).extend(k_PKD.unsqueeze(0), v_PKD.unsqueeze(0))

    def _item(self, work: Work) -> RaggedItem:
        prefix_1T = None
        if self._model.config.prefix_lm and work.size > 1:
            prefix_1T = (paddle.arange(work.stop) < work.sequence.num_prompt).unsqueeze(0)
        return RaggedItem(work.size, work.stop, AttentionMask(prefix_BT=prefix_1T))

    def _positions(self, work: Work) -> np.ndarray:
        """Return the positions of the new tokens, [1, S] or [1, 2, S]."""
        known_1T = np.array([work.sequence.tokens[: work.start] + work.new_ids], dtype=np.int64)
        prefix_1T = np.arange(work.stop)[None] < work.sequence.num_prompt
        config = self._model.config
        segments_1T = np.ones_like(known_1T, dtype=np.int32)
        found = config.positions(known_1T, segments_1T, prefix_1T if config.prefix_lm else None)
        return found[..., work.start :]

    def _slots(self, works: Several[Work], *, new: bool) -> np.ndarray:
        places = []
        for work in works:
            if not new:
                places.append(self._prefix_slots)
            first = work.start if new else 0
            places.append(slots(work.sequence.blocks, first, work.stop, self._block_tokens))
        return np.concatenate(places)

    def _logits(self, hidden_SH: paddle.Tensor, works: Several[Work]) -> list[np.ndarray]:
        rows: list[int] = []
        counts, end = [], 0
        for work in works:
            end += work.size
            rows += range(end - work.num_results, end)
            counts.append(work.num_results)
        if not rows:
            return [np.zeros((0, 0), dtype=np.float32) for _ in works]
        chosen_RH = paddle.index_select(hidden_SH, paddle.to_tensor(np.array(rows, dtype=np.int64)), axis=0)
        logits_RV = self._model.head(chosen_RH).astype("float32").numpy()
        return np.split(logits_RV, np.cumsum(counts)[:-1])
