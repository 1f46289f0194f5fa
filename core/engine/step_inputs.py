"""What a step of the C++ kernels is told of its tokens besides where they lie: embeddings, and tables of positions."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Several
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from ..layers import Decoder
from ..ops.float_rows import FloatRows, flat
from ..ops.from_array import from_array
from ..ops.mask import AttentionMask
from .runner import inference

if TYPE_CHECKING:
    from ..causal_lm import CausalLM


class EmbeddingRows:
    """Hidden states before the first block: rows of a table where the model does no more than look them up.

    Paddle's own look-up would be a tenth of a step of integers: the weights that a step reads leave none of it cached.
    """

    def __init__(self, model: CausalLM) -> None:
        """Find the table."""
        self._model = model
        self._rows = FloatRows(model.config.hidden_size)
        self._table: memoryview[float] | None = None
        if type(model).embed is not Decoder.embed or type(model.embed_tokens) is not nn.Embedding:
            return
        weight = model.embed_tokens.weight
        if weight.dtype == paddle.float32 and weight.is_contiguous():
            self._weight = weight  # whose memory the table is
            numbers = (ctypes.c_float * weight.size).from_address(weight.data_ptr())
            self._table = flat(np.ctypeslib.as_array(numbers))

    def rows(self, ids_R: Several[int], positions_R: Several[int]) -> FloatRows:
        """Return hidden states [R, H] of tokens at positions, until the next call."""
        if self._table is not None:
            self._rows.gather(self._table, ids_R)
            return self._rows
        with inference(self._model):
            ids_1R, positions_1R = (np.array([numbers], dtype=np.int64) for numbers in (ids_R, positions_R))
            hidden_1RH = self._model.embed(from_array(ids_1R), from_array(positions_1R))
            self._rows.put(hidden_1RH[0].astype("float32").numpy())
        return self._rows


class PositionTables:
    """What blocks are told about positions: the family's own tables, computed once where they can be."""

    def __init__(self, model: CausalLM) -> None:
        """Begin with no positions."""
        rotary = getattr(model.config, "rotary", None)
        self._model, self._grows = model, rotary is not None and rotary.depends_on_length
        self._rows: list[FloatRows | None] = [
            None if table is None else FloatRows(table.shape[1]) for table in _tables(model, np.arange(1))
        ]
        self._known: list[tuple[FloatRows, memoryview[float]]] = []
        self._count = 0

    def rows(self, positions_R: Several[int], starts: Several[int]) -> list[FloatRows | None]:
        """Return cosine [R, P], sine [R, P] and factors on the queries [R] of tokens, until the next call.

        Args:
            positions_R: of the tokens, those of one sequence side by side.
            starts: first row of each sequence, and R.

        Returns:
            The three; ``None`` for those that there are not.
        """
        if self._grows:
            self._compute(positions_R, starts)
            return self._rows
        last = max(positions_R) + 1
        if last > self._count:
            self._count = max(2 * self._count, last, 1024)
            tables = _tables(self._model, np.arange(self._count))
            pairs = zip(self._rows, tables, strict=True)
            self._known = [(rows, flat(table)) for rows, table in pairs if rows is not None and table is not None]
        for rows, table in self._known:
            rows.gather(table, positions_R)
        return self._rows

    def _compute(self, positions_R: Several[int], starts: Several[int]) -> None:
        """Compute the tables of each sequence for itself: its own length says how far its angles are stretched."""
        positions = np.array(positions_R, dtype=np.int64)
        parts = [_tables(self._model, positions[start:end]) for start, end in pairwise(starts)]
        for rows, side in zip(self._rows, zip(*parts, strict=True), strict=True):
            if rows is not None:
                rows.put(np.concatenate(side))


def _tables(model: CausalLM, positions_R: np.ndarray) -> list[np.ndarray | None]:
    """Return cosine and sine [R, P] and factors on the queries [R, 1]; float32."""
    context = model.context(paddle.to_tensor(positions_R[None]), AttentionMask())
    rotary = context.rotary or (None, None)
    tables = (*rotary, context.query_scale_BS)
    rows = len(positions_R)
    return [None if table is None else table[0].astype("float32").numpy().reshape(rows, -1) for table in tables]
