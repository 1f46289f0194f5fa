"""What the sections of a stage read of each micro-batch besides hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...data.sample import IGNORED, Batch
from ...trainer.inputs import Inputs, to_inputs
from ..tensor.model import split_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...causal_lm import BlockContext, CausalLM


class StageInputs:
    """Ids, positions, mask and rotary tables, made once for each micro-batch and kept until its last section here."""

    def __init__(self, model: CausalLM, batches: Sequence[Batch], last: int) -> None:
        """Begin with nothing made.

        Args:
            model: of this stage.
            batches: the micro-batches.
            last: the last section of this stage.
        """
        self._model = model
        self._batches = batches
        self._last = last
        self._held: dict[int, tuple[Inputs, BlockContext]] = {}
        split = split_of(model)
        self._multiple = split.group.size if split is not None and split.sequence_parallel else 1

    def take(self, section: int, micro: int) -> tuple[Inputs, BlockContext]:
        """Return what a section reads of a micro-batch.

        Raises:
            DataError: a token id is not in the model's vocabulary.
        """
        if micro not in self._held:
            inputs = to_inputs(lengthen(self._batches[micro], self._multiple), self._model.config)
            self._held[micro] = inputs, self._model.context(inputs.positions, inputs.mask)
        return self._held.pop(micro) if section == self._last else self._held[micro]


def lengthen(batch: Batch, multiple: int) -> Batch:
    """Add padding until the rows are a multiple of ``multiple`` long, so that tokens divide among ranks."""
    missing = -batch.ids_BS.shape[1] % multiple
    if not missing:
        return batch

    def longer(rows: np.ndarray, value: int) -> np.ndarray:
        return np.pad(rows, [*[(0, 0)] * (rows.ndim - 1), (0, missing)], constant_values=value)

    return Batch(
        longer(batch.ids_BS, 0),
        longer(batch.labels_BS, IGNORED),
        longer(batch.segments_BS, 0),
        longer(batch.prefix_BS, False),
        longer(batch.positions, 0),
    )
