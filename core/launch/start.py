"""Start a task: environment, Paddle, device, kernels, and then the task itself, here or in several processes."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

from ..config.option import TRAINING
from ..run import Run
from ..tasks import load_task
from . import environment
from .framework import choose_device, require_paddle
from .kernels import apply_preferences
from .record import FOLDER, STOPPED, note_end, note_failure, note_start
from .world import World, find_world

WITHOUT_PADDLE = ("data",)
"""Tasks that compute nothing."""
log = logging.getLogger("llm_run.launch")


def start(run: Run, notes: list[str], *, words: Sequence[str], may_restart: bool) -> int:
    """Run the task and return its exit status.

    Args:
        run: the checked request.
        notes: on keys and values of the request; logged before the task's own lines.
        words: of the command line, which the processes that are started get as well.
        may_restart: see ``environment.settle``.
    """
    world = find_world(run.config.launch)
    if world.is_to_be_launched:
        return _launch(run, world, words)
    needs_paddle = run.config.task not in WITHOUT_PADDLE
    if needs_paddle:
        settle(run, may_restart=may_restart)
    with _as_rank(world):
        for note in notes:
            log.info("llm-run: note: %s", note)
        for warning in run.family.warnings:
            log.warning(warning)
        if needs_paddle:
            _choose_device(run, world)
            apply_preferences(run.config.model)
        status = load_task(run.config.task)(run)
    if world.membership is not None:
        note_end(status)
        # The launcher kills the others where one ends with a status of its own; what happened is in the record.
        return 0 if status in STOPPED and FOLDER in os.environ else status
    return status


def settle(run: Run, *, may_restart: bool) -> None:
    """Put the environment in force that the run's Paddle is to have."""
    launch = run.config.launch
    environment.settle(
        threads=launch.threads,
        processes=find_world(launch).local_size,
        training=run.config.task in TRAINING,
        may_restart=may_restart,
    )


def _launch(run: Run, world: World, words: Sequence[str]) -> int:
    """Start the processes of this machine and wait for them."""
    from .processes import launcher_command, launcher_environment, log_directory, rank_command
    from .supervise import supervise

    require_paddle()
    launch = run.config.launch
    is_training = run.config.task in TRAINING
    output_dir = run.config.training.output_dir if is_training else None
    log_dir = Path(mkdtemp(prefix="llm-run-")) if output_dir is None else log_directory(output_dir, launch)
    settings = environment.lacking(threads=launch.threads, processes=world.local_size, training=is_training)
    status = supervise(
        launcher_command(rank_command(words), launch, world, log_dir),
        launcher_environment(os.environ, launch, settings, log_dir),
        log_dir,
        processes=world.local_size,
        timeout_s=launch.dist_timeout,
        shows=launch.node_rank == 0,
    )
    if output_dir is None and status in (0, *STOPPED):
        shutil.rmtree(log_dir, ignore_errors=True)  # rank 0 has said it all; where a rank failed, its log is named
    return status


@contextlib.contextmanager
def _as_rank(world: World) -> Iterator[None]:
    """Be one of several processes while entered: only rank 0 speaks, and a failure is noted for who started it."""
    if world.membership is None:
        yield
        return
    os.environ |= world.membership.variables()
    if FOLDER in os.environ:
        from .processes import die_with_parent

        die_with_parent()
        note_start()
    elif world.membership.rank > 0:  # somebody else's launcher may mix the output of all
        logging.getLogger("llm_run").setLevel(logging.WARNING)
    try:
        yield
    except BaseException as error:
        note_failure(error)
        raise


def _choose_device(run: Run, world: World) -> None:
    """Compute on the GPU that the launcher or the user chose for this process, or on the CPU."""
    launch, membership = run.config.launch, world.membership
    if membership is None:
        choose_device(launch.device, launch.devices)
    elif launch.device == "cpu":
        choose_device("cpu")
    else:
        choose_device(launch.device, os.environ.get("FLAGS_selected_gpus"), local_rank=membership.local_rank)
