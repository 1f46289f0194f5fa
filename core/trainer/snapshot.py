"""What a checkpoint holds, before it is written. Nothing here imports Paddle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .tensor_files import OwnedPart, owned_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """Where training stands, at the boundary between two steps."""

    step: int = 0
    """Finished steps, skipped ones included."""
    samples: int = 0
    """Samples consumed: the global position of the next one."""
    tokens: int = 0
    """Supervised tokens consumed."""
    updates: int = 0
    """Updates of the optimizer: steps that were not skipped."""
    skipped_in_row: int = 0
    loss_scale: float = 1.0
    loss_scale_good_steps: int = 0
    evaluated_step: int = -1
    """Step of the last evaluation; -1 before the first one."""
    best_step: int = -1
    """Step of the best evaluation; -1 before the first one."""
    best_value: float | None = None
    """What the best evaluation measured."""
    evaluations_since_best: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a checkpoint holds. The arrays may be views of live tensors: nothing is to change before it is saved."""

    state: TrainerState
    identity: Mapping[str, Any]
    model: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    about: Mapping[str, Any]
    """Versions and the like, for the manifest's reader."""
    places: Mapping[str, OwnedPart] = field(default_factory=dict)
    """What this rank has and writes of a logical tensor (``model/<name>``); all of it where a name is missing."""

    def parts(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yield ``model`` and ``optimizer`` with their arrays under the names that they have in a checkpoint."""
        for part, arrays in (("model", self.model), ("optimizer", self.optimizer)):
            yield part, {f"{part}/{name}": array for name, array in arrays.items()}

    @property
    def num_bytes(self) -> int:
        """Bytes that this rank writes of all tensors."""
        written = (owned_blocks("", arrays, self.places)[0] for _, arrays in self.parts())
        return sum(array.nbytes for arrays in written for array in arrays.values())
