"""When training saves: snapshots of the live state, and what happens when the disk says no."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TrainingError
from .checkpoint import Checkpoint, CheckpointStore, Snapshot, TrainerState
from .optimizer import load_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .optimizer import AdamW

_log = logging.getLogger("llm_run.trainer")

MAX_FAILURES = 3
"""Saves in a row that may fail before training stops."""


class Saver:
    """Saves model, optimizer and trainer state; outlives a full disk for a while."""

    def __init__(
        self,
        store: CheckpointStore,
        model: CausalLM,
        optimizer: AdamW,
        *,
        identity: Mapping[str, Any],
        about: Mapping[str, Any],
        limit: int | None,
    ) -> None:
        self.store = store
        self.model = model
        self.optimizer = optimizer
        self.identity = identity
        self.about = about
        self.limit = limit
        self.failures = 0
        self.last: Path | None = None
        """The last checkpoint that is known to be whole."""

    def snapshot(self, state: TrainerState) -> Snapshot:
        """Return the live state; on a CPU it is looked at where it is, from a GPU it is copied."""
        return Snapshot(
            state=state,
            identity=self.identity,
            model={name: to_array(tensor) for name, tensor in model_tensors(self.model).items()},
            optimizer={name: to_array(tensor) for name, tensor in self.optimizer.state().items()},
            about=self.about,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint's tensors into model and optimizer.

        Raises:
            CheckpointError: it is not of this model.
        """
        load_tensors(model_tensors(self.model), checkpoint.tensors_of("model"))
        self.optimizer.load(checkpoint.tensors_of("optimizer"), checkpoint.state.updates)
        self.last = checkpoint.directory

    def save(self, state: TrainerState, *, must: bool = False) -> bool:
        """Save; a failure is logged and tried again at the next step, unless this is the last chance.

        Returns:
            Whether the checkpoint is on the disk.

        Raises:
            TrainingError: this was the ``MAX_FAILURES``-th failure in a row, or it ``must`` succeed.
        """
        try:
            self.last = self.store.save(self.snapshot(state), self.limit)
        except OSError as error:
            self.failures += 1
            said = f"step {state.step}: the checkpoint cannot be saved ({error.strerror or error})"
            if must or self.failures >= MAX_FAILURES:
                raise TrainingError(f"{said}. {self.whereabouts()}") from error
            _log.warning("%s; training goes on, next try after the next step", said)
            return False
        self.failures = 0
        _log.info("saved %s", self.last)
        return True

    @property
    def is_pending(self) -> bool:
        """Whether the last save failed and is to be tried again."""
        return self.failures > 0

    def whereabouts(self) -> str:
        """Say where the last whole checkpoint is, as a sentence."""
        return f"The last checkpoint is {self.last}." if self.last else "There is no checkpoint yet."


def model_tensors(model: CausalLM) -> dict[str, Any]:
    """Return parameters and persistent buffers by logical name, a shared one once."""
    tensors: dict[str, Any] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values: on a CPU a view, so that saving needs no memory of its own."""
    return np.from_dlpack(tensor.detach()) if tensor.place.is_cpu_place() else tensor.numpy()
