"""When training saves: snapshots of the live state, and what happens when the disk says no."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..convert.load import fill
from ..errors import CheckpointError, TrainingError
from ..parallel.agree import by_main
from ..parallel.ownership import share_out
from ..parallel.slices import Part
from .checkpoint import Checkpoint, CheckpointStore, open_checkpoint, read_checkpoint
from .checkpoint_weights import CheckpointWeights
from .checkpoint_writer import write_checkpoint
from .snapshot import Snapshot, TrainerState
from .storage import temporary_sibling
from .tensor_files import OwnedPart

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..parallel.mesh import Mesh
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
        mesh: Mesh,
    ) -> None:
        self.store = store
        self.optimizer = optimizer
        self.identity = identity
        self.about = about
        self.limit = limit
        self.mesh = mesh
        self.failures = 0
        self.last: Path | None = None
        """The last checkpoint that is known to be whole."""
        holding = optimizer.holding
        self._model = {**model_tensors(model), **holding.tensors}
        parts = {**{name: Part.whole(tuple(tensor.shape)) for name, tensor in self._model.items()}, **holding.parts}
        self.parts = {f"model/{name}": part for name, part in parts.items()}
        self.parts |= {f"optimizer/{name}": part for name, part in optimizer.parts().items()}
        self.ownership = share_out(self.parts, mesh)

    def snapshot(self, state: TrainerState) -> Snapshot:
        """Return the live state; on a CPU it is looked at where it is, from a GPU it is copied."""
        return Snapshot(
            state=state,
            identity=self.identity,
            model={name: to_array(tensor) for name, tensor in self._model.items()},
            optimizer={name: to_array(tensor) for name, tensor in self.optimizer.state().items()},
            about=self.about,
            places={name: OwnedPart(part, self.ownership.owned[name]) for name, part in self.parts.items()},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint's tensors into model and optimizer, each rank what it holds of them.

        Raises:
            CheckpointError: it is not of this model.
        """
        index = checkpoint.reader.index
        for name in self.ownership.names ^ index.keys():
            _, _, said = name.partition("/")
            raise CheckpointError(f"{said}: is in the {'checkpoint' if name in index else 'model'} only")
        for name, part in self.parts.items():
            if index[name].shape != part.shape:
                _, _, said = name.partition("/")
                raise CheckpointError(
                    f"{said}: has shape {list(index[name].shape)}, and {list(part.shape)} in the model"
                )
        for kind, tensors in (("model", self._model), ("optimizer", self.optimizer.state())):
            for name, tensor in tensors.items():
                if tensor.size:
                    fill(tensor, checkpoint.reader.read_part(f"{kind}/{name}", self.parts[f"{kind}/{name}"]))
        self.optimizer.updates = checkpoint.state.updates
        self.optimizer.holding.publish()
        self.last = checkpoint.directory

    def restore_step(self, step: int) -> None:
        """Verify the checkpoint of a step and put its tensors into model and optimizer.

        Raises:
            CheckpointError: it is not what was written.
            OSError: it cannot be read.
        """
        path = self.store.path(step)
        by_main(self.mesh, f"a look at the checkpoint of step {step}", lambda: str(read_checkpoint(path).directory))
        self.restore(open_checkpoint(path))

    def save(self, state: TrainerState, *, must: bool = False, keep: int | None = None) -> bool:
        """Save; a failure is logged and tried again at the next step, unless this is the last chance.

        Args:
            state: of the trainer.
            must: this is the last chance.
            keep: step of a checkpoint that is not deleted, however old it is.

        Returns:
            Whether the checkpoint is on the disk.

        Raises:
            TrainingError: this was the ``MAX_FAILURES``-th failure in a row, or it ``must`` succeed.
        """
        try:
            self.last = self.store.save(self.snapshot(state), self.limit, self.mesh, keep=keep)
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

    @contextmanager
    def whole_weights(self, state: TrainerState) -> Iterator[CheckpointWeights | None]:
        """Give the weights of the whole model, as they lie on the disk; ``None`` where the model itself has them all.

        They are those of the checkpoint of this step, or are written for the occasion and deleted again.

        Raises:
            OSError: the disk is full or cannot be written. Raised on every rank, or on none.
        """
        if self.has_whole_model:
            yield None
            return
        target = self.store.path(state.step)
        if self.last == target:
            yield self.weights_in(target)
            return
        storage = self.store.storage
        folder = by_main(self.mesh, "the start of the result", lambda: str(temporary_sibling(target)))
        try:
            write_checkpoint(storage, Path(folder), replace(self.snapshot(state), optimizer={}), self.mesh)
            yield self.weights_in(Path(folder))
        finally:
            if self.mesh.is_main and Path(folder).exists():
                storage.remove_tree(Path(folder))

    def weights_in(self, directory: Path) -> CheckpointWeights:
        """Return the weights in a checkpoint of this model."""
        reader = open_checkpoint(directory).reader
        names = [name.removeprefix("model/") for name in reader.index if name.startswith("model/")]
        return CheckpointWeights(reader, names)

    @property
    def has_whole_model(self) -> bool:
        """Whether the model of this rank has all values of all parameters."""
        plan = self.mesh.plan
        return self.optimizer.holding.keeps_whole and plan.mp == plan.pp == 1

    @property
    def is_pending(self) -> bool:
        """Whether the last save failed and is to be tried again."""
        return self.failures > 0

    def whereabouts(self) -> str:
        """Say where the last whole checkpoint is, as a sentence."""
        return f"The last checkpoint is {self.last}." if self.last else "There is no checkpoint yet."


def model_tensors(model: CausalLM) -> dict[str, Any]:
    """Return trained parameters and persistent buffers by logical name, a shared one once.

    What is frozen is the same before and after: it is read again where it came from.
    """
    tensors: dict[str, Any] = {}
    frozen = {id(parameter) for parameter in model.parameters() if parameter.stop_gradient}
    seen: set[int] = frozen
    for name, tensor in model.state_dict().items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values: on a CPU a view, so that saving needs no memory of its own."""
    return np.from_dlpack(tensor.detach()) if tensor.place.is_cpu_place() else tensor.numpy()
