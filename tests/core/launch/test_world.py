"""How many processes there are, and who started them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.config.groups import LaunchOptions
from llm_run.core.launch.world import find_world

PADDLE = {"PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "4", "PADDLE_LOCAL_SIZE": "2", "PADDLE_MASTER": "h:1"}
SLURM = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "n[1-2]"}


@pytest.mark.parametrize(
    ("options", "size", "local_size", "asked_by"),
    [
        ({}, 1, 1, ("--nproc_per_node", "1")),
        ({"nproc_per_node": 2}, 2, 2, ("--nproc_per_node", "2")),
        ({"devices": "0,1,2"}, 3, 3, ("--devices", "0,1,2")),
        ({"devices": "3"}, 1, 1, ("--nproc_per_node", "1")),
        ({"nnodes": 2}, 2, 1, ("--nnodes", "2")),
        ({"nnodes": 2, "nproc_per_node": 4}, 8, 4, ("--nproc_per_node", "4")),
        ({"nnodes": 2, "devices": "0,1"}, 4, 2, ("--devices", "0,1")),
    ],
)
def test_options_ask_for_processes_that_are_to_be_started(
    options: dict[str, Any], size: int, local_size: int, asked_by: tuple[str, str]
) -> None:
    world = find_world(LaunchOptions(**options), {})
    assert (world.size, world.local_size, world.asked_by) == (size, local_size, asked_by)
    assert world.is_to_be_launched == (size > 1)


def test_a_rank_joins_and_starts_nobody_though_its_flags_are_those_of_the_command() -> None:
    world = find_world(LaunchOptions(nproc_per_node=2, nnodes=2), PADDLE)
    assert not world.is_to_be_launched
    assert (world.size, world.local_size, world.asked_by) == (4, 2, ("PADDLE_TRAINERS_NUM", "4"))


def test_a_task_of_srun_joins_unless_it_is_told_to_start_processes_of_its_own() -> None:
    world = find_world(LaunchOptions(), SLURM)
    assert (world.size, world.asked_by) == (2, ("SLURM_STEP_NUM_TASKS", "2"))
    assert not world.is_to_be_launched
    assert find_world(LaunchOptions(nnodes=2, nproc_per_node=4), SLURM).is_to_be_launched
