"""What the sections of a stage read of each micro-batch besides hidden states."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...data.sample import IGNORED, Batch
from ...trainer.inputs import Inputs, to_inputs
from ..sep.model import row_share_of
from ..tensor.model import split_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...causal_lm import BlockContext, Cache, CausalLM


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
        split, share = split_of(model), row_share_of(model)
        self._multiple = split.group.size if split is not None and split.sequence_parallel else 1
        if share is not None:
            self._multiple = share.multiple

    def take(self, section: int, micro: int) -> tuple[Inputs, BlockContext, Cache | None]:
        """Return what a section reads of a micro-batch; the keys and values of a prefix, where there is one, anew for
        each section, since each goes back through them by itself.

        Raises:
            DataError: a token id is not in the model's vocabulary.
        """
        prefix = self._model.prefix
        if micro not in self._held:
            inputs = to_inputs(lengthen(self._batches[micro], self._multiple), self._model.config)
            if prefix is not None:
                positions, mask = prefix.make_room(inputs.positions, inputs.mask)
                inputs = replace(inputs, positions=positions, mask=mask)
            self._held[micro] = inputs, self._model.context(inputs.positions, inputs.mask)
        held = self._held.pop(micro) if section == self._last else self._held[micro]
        return *held, None if prefix is None else prefix.cache()


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
