"""Computes one step of the scheduler: all its tokens in one row, each sequence over its own blocks."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..adapters.switched import active_adapter
from ..ops.from_array import from_array
from ..ops.mask import AttentionMask
from ..ops.ragged import RaggedItem, RaggedMask
from ..parallel.tensor.logits import whole_logits
from .int8_cache import Int8Store
from .paged_cache import PagedStore, StepCache, Store, slots
from .pieces import Piece, make_piece
from .runner import inference
from .step_runner import StepRunner

if TYPE_CHECKING:
    from ..adapters.prefix import Prefix
    from ..causal_lm import CausalLM
    from .scheduler import Work


class PagedRunner(StepRunner):
    """Runs any family: the model itself over a packed row, with keys and values gathered from the blocks.

    Of a split model it runs the rank's part, and all ranks must compute the same pieces.
    """

    def __init__(self, model: CausalLM, num_blocks: int, block_tokens: int, *, int8_cache: bool = False) -> None:
        """Reserve the cache."""
        self._model = model
        self._block_tokens = block_tokens
        num_prefix = 0 if model.prefix is None else model.prefix.settings.num_tokens
        num_slots = num_blocks * block_tokens + num_prefix
        self.store: Store = (Int8Store if int8_cache else PagedStore)(model.config, num_slots)
        self._prefix_slots = np.arange(num_blocks * block_tokens, self.store.num_slots)
        """Where the keys and values of a tuned prefix lie, which every sequence reads before its own."""
        if model.prefix is not None:
            self._write_prefix(model.prefix)

    def run(self, works: Several[Work]) -> list[np.ndarray]:
        """Compute the tokens of each piece of work (``StepRunner.run``)."""
        return self.compute([make_piece(work, self._model.config) for work in works])

    def compute(self, pieces: Several[Piece]) -> list[np.ndarray]:
        """Compute pieces of work; those of one adapter together.

        Returns:
            Float32 logits [V] of the last ``num_results`` tokens of each, one behind the other.
        """
        found: dict[int, np.ndarray] = {}
        for adapter in dict.fromkeys(piece.adapter for piece in pieces):
            mine = [place for place, piece in enumerate(pieces) if piece.adapter == adapter]
            with active_adapter(adapter):
                found.update(zip(mine, self._compute([pieces[place] for place in mine]), strict=True))
        return [logits_V for place in range(len(pieces)) for logits_V in found[place]]

    def _compute(self, pieces: Several[Piece]) -> list[np.ndarray]:
        mask = RaggedMask(tuple(self._item(piece) for piece in pieces))
        cache = StepCache(
            self.store, self._slots(pieces, new=True), self._slots(pieces, new=False), len(self._prefix_slots)
        )
        with inference(self._model):
            hidden_1SH = self._model(
                from_array(np.concatenate([piece.ids_S for piece in pieces])[None]),
                from_array(np.concatenate([piece.positions for piece in pieces], axis=-1)),
                mask,
                cache,
            )
            return self._logits(hidden_1SH[0], pieces)

    def _write_prefix(self, prefix: Prefix) -> None:
        with paddle.no_grad():
            keys, values = prefix.own_keys_and_values()
            cache = StepCache(self.store, self._prefix_slots, self._prefix_slots, 0)
            for index, (k_PKD, v_PKD) in enumerate(zip(keys, values, strict=True)):
                cache.layer(index).extend(k_PKD.unsqueeze(0), v_PKD.unsqueeze(0))

    def _item(self, piece: Piece) -> RaggedItem:
        prefix_1T = None
        if self._model.config.prefix_lm and piece.size > 1:
            prefix_1T = (paddle.arange(piece.stop) < piece.num_prompt).unsqueeze(0)
        return RaggedItem(piece.size, piece.stop, AttentionMask(prefix_BT=prefix_1T))

    def _slots(self, pieces: Several[Piece], *, new: bool) -> np.ndarray:
        places = []
        for piece in pieces:
            if not new:
                places.append(self._prefix_slots)
            first = piece.start if new else 0
            places.append(slots(piece.blocks, first, piece.stop, self._block_tokens))
        return np.concatenate(places)

    def _logits(self, hidden_SH: paddle.Tensor, pieces: Several[Piece]) -> list[np.ndarray]:
        rows: list[int] = []
        counts, end = [], 0
        for piece in pieces:
            end += piece.size
            rows += range(end - piece.num_results, end)
            counts.append(piece.num_results)
        if not rows:
            return [np.zeros((0, 0), dtype=np.float32) for _ in pieces]
        chosen_RH = paddle.index_select(hidden_SH, from_array(np.array(rows, dtype=np.int64)), axis=0)
        logits_RV = whole_logits(self._model, chosen_RH).astype("float32").numpy()
        return np.split(logits_RV, np.cumsum(counts)[:-1])
