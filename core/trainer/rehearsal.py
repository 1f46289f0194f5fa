"""Save and reload before the first step, so that saving cannot fail after hours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LlmRunError, TrainingError
from .checkpoint import TrainerState, read_checkpoint, write_checkpoint
from .storage import temporary_sibling

if TYPE_CHECKING:
    from .saver import Saver

_log = logging.getLogger("llm_run.trainer")


def rehearse(saver: Saver, root: Path, export: Callable[[Path], None]) -> None:
    """Write a checkpoint and a model directory, see that both read back to the bit, and delete them.

    Args:
        saver: of the run.
        root: the output directory.
        export: writes the final model directory, and checks it by itself.

    Raises:
        TrainingError: something cannot be saved, or comes back changed.
    """
    start = time.perf_counter()
    storage, folder = saver.store.storage, temporary_sibling(root / "rehearsal")
    snapshot = saver.snapshot(TrainerState())
    try:
        storage.make_directory(folder)
        write_checkpoint(storage, folder / "checkpoint-0", snapshot)
        checkpoint = read_checkpoint(folder / "checkpoint-0")
        _compare(snapshot.model, checkpoint.tensors_of("model"))
        _compare(snapshot.optimizer, checkpoint.tensors_of("optimizer"))
        export(folder / "model")
    except OSError as error:
        raise TrainingError(f"save rehearsal: {root} cannot be written ({error.strerror or error})") from error
    except LlmRunError as error:
        raise TrainingError(f"save rehearsal: {error}") from error
    finally:
        if folder.exists():
            storage.remove_tree(folder)
    _log.info("save rehearsal: a checkpoint and the model directory were written and read back in %.1f s; "
              "--save_rehearsal false turns it off", time.perf_counter() - start)  # fmt: skip


def _compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    for name, array in ours.items():
        if name not in theirs or array.tobytes() != theirs[name].tobytes():
            raise TrainingError(f"tensor {name} does not come back from the checkpoint as it was saved")
