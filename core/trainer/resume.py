"""Where a run goes on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..parallel.mesh import Mesh
from .checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from .identity import check_same_run

if TYPE_CHECKING:
    from ..config.training import TrainingOptions
    from .workspace import Workspace

_log = logging.getLogger("llm_run.trainer")


def find_checkpoint(
    workspace: Workspace, options: TrainingOptions, ours: Mapping[str, Any], mesh: Mesh | None = None
) -> Checkpoint | None:
    """Return the checkpoint to go on from, if there is one; rank 0 looks for it and verifies it for all.

    That is the one the user names, or the newest valid one in the output directory; with ``overwrite_output_dir``
    there is none, and old ones are deleted. Checkpoints newer than the one taken are renamed, so that they do not
    pass for those of the run that goes on.

    Raises:
        CheckpointError: the named one is damaged, or only damaged ones exist.
        RefusedError: it belongs to another run.
    """
    mesh = mesh or Mesh()
    found = _find(workspace, options, ours) if mesh.is_main else None
    directory = mesh.share(str(found.directory) if found else None, "the choice of a checkpoint")
    return found if mesh.is_main or directory is None else open_checkpoint(Path(directory))


def _find(workspace: Workspace, options: TrainingOptions, ours: Mapping[str, Any]) -> Checkpoint | None:
    store = workspace.checkpoints
    if options.overwrite_output_dir:
        store.discard_all()
        return None
    named = options.resume_from_checkpoint
    checkpoint = read_checkpoint(Path(named)) if named else store.newest()
    if checkpoint is None:
        return None
    check_same_run(checkpoint.identity, ours, checkpoint.directory)
    _log.info("going on from %s: step %d", checkpoint.directory, checkpoint.state.step)
    for step in store.steps():
        if step > checkpoint.state.step:
            moved = store.set_aside(step, "superseded")
            _log.info("checkpoint-%d is newer than the one to go on from; renamed to %s", step, moved.name)
    return checkpoint
