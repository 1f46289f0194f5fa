"""Start a task: environment, Paddle, device, kernels, and then the task itself in this process."""

from __future__ import annotations

import logging
import os

from ..config.option import TRAINING
from ..errors import Problem, RefusedError
from ..run import Run
from ..tasks import load_task
from . import environment
from .framework import choose_device
from .kernels import apply_preferences

WITHOUT_PADDLE = ("data",)
"""Tasks that compute nothing."""
log = logging.getLogger("llm_run.launch")


def start(run: Run, notes: list[str], *, may_restart: bool) -> int:
    """Run the task and return its exit status.

    Args:
        run: the checked request, of one process (the capability check refuses more in this version).
        notes: on keys and values of the request; logged before the task's own lines.
        may_restart: see ``environment.settle``.
    """
    _refuse_ranks()
    needs_paddle = run.config.task not in WITHOUT_PADDLE
    if needs_paddle:
        settle(run, may_restart=may_restart)
    for note in notes:
        log.info("llm-run: note: %s", note)
    for warning in run.family.warnings:
        log.warning(warning)
    if needs_paddle:
        choose_device(run.config.launch.device, run.config.launch.devices)
        apply_preferences(run.config.model)
    return load_task(run.config.task)(run)


def _refuse_ranks() -> None:
    """Refuse to be one of several processes of a launcher: each would do the whole run, into the same folder."""
    ranks = os.environ.get("PADDLE_TRAINERS_NUM", "1")
    if ranks != "1":
        remedy = "Start llm-run without a launcher, in one process."
        raise RefusedError(Problem("PADDLE_TRAINERS_NUM", ranks, "processes are not in this version", remedy))


def settle(run: Run, *, may_restart: bool) -> None:
    """Put the environment in force that the run's Paddle is to have."""
    launch = run.config.launch
    environment.settle(
        threads=launch.threads,
        processes=launch.nproc_per_node,
        training=run.config.task in TRAINING,
        may_restart=may_restart,
    )
