"""Save and reload before the first step, so that saving cannot fail after hours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DistributedError, LlmRunError, TrainingError
from ..parallel.agree import by_main, together
from .checkpoint import open_checkpoint, read_checkpoint
from .checkpoint_writer import write_checkpoint
from .snapshot import TrainerState
from .storage import temporary_sibling

if TYPE_CHECKING:
    from ..convert.logical import LogicalTensors
    from .saver import Saver

_log = logging.getLogger("llm_run.trainer")


def rehearse(saver: Saver, root: Path, export: Callable[[Path, LogicalTensors | None], None]) -> None:
    """Write a checkpoint and a model directory, see that both read back to the bit, and delete them.

    Args:
        saver: of the run; every rank must call this.
        root: the output directory.
        export: writes the final model directory, from the weights given where the model has not all of them itself,
            and checks it by itself.

    Raises:
        TrainingError: something cannot be saved, or comes back changed.
    """
    start = time.perf_counter()
    storage, mesh = saver.store.storage, saver.mesh
    folder = Path(mesh.share(str(temporary_sibling(root / "rehearsal")), "the name of the rehearsal"))
    try:
        by_main(mesh, "the start of the rehearsal", lambda: storage.make_directory(folder))
        together(mesh, "the end of the rehearsal", lambda: _save_and_compare(saver, folder, export))
    except OSError as error:
        raise TrainingError(f"save rehearsal: {root} cannot be written ({error.strerror or error})") from error
    except DistributedError:
        raise
    except LlmRunError as error:
        raise TrainingError(f"save rehearsal: {error}") from error
    finally:
        if mesh.is_main and folder.exists():
            storage.remove_tree(folder)
    _log.info("save rehearsal: a checkpoint and the model directory were written and read back in %.1f s; "
              "--save_rehearsal false turns it off", time.perf_counter() - start)  # fmt: skip


def _save_and_compare(saver: Saver, folder: Path, export: Callable[[Path, LogicalTensors | None], None]) -> None:
    snapshot = saver.snapshot(TrainerState())
    target = folder / "checkpoint-0"
    write_checkpoint(saver.store.storage, target, snapshot, saver.mesh)
    reader = (read_checkpoint if saver.mesh.is_main else open_checkpoint)(target).reader
    for _, arrays in snapshot.parts():
        for name, array in arrays.items():
            if name not in reader.index or array.tobytes() != reader.read_part(name, saver.parts[name]).tobytes():
                _, _, said = name.partition("/")
                raise TrainingError(f"tensor {said} does not come back from the checkpoint as it was saved")
    if saver.mesh.is_main:
        export(folder / "model", None if saver.has_whole_model else saver.weights_in(target))
