"""How many processes a run has, and which of them this one is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..config.groups import LaunchOptions
from ..parallel.membership import Membership, find_membership, membership_of_slurm


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run."""

    size: int
    """In all."""
    local_size: int
    """On this machine."""
    membership: Membership | None
    """Of this process; ``None`` where the processes are still to be started, or there is only one."""
    asked_by: tuple[str, str]
    """The flag or variable that says how many processes there are, and its value."""

    @property
    def is_to_be_launched(self) -> bool:
        """Whether this process starts the others and computes nothing itself."""
        return self.size > 1 and self.membership is None


def find_world(launch: LaunchOptions, environment: Mapping[str, str] | None = None) -> World:
    """Return the processes of a run: those that somebody else started, or those that are asked for.

    A task of ``srun`` is one of several processes, unless a flag says that llm-run starts processes itself: one
    ``srun`` task on each machine may do so.

    Args:
        launch: the options.
        environment: of this process, by default.

    Raises:
        RefusedError: variables that say who this process is are wrong.
    """
    variables = os.environ if environment is None else environment
    local_size, machines = max(1, launch.nproc_per_node), max(1, launch.nnodes)
    asked_by = ("--nproc_per_node", str(launch.nproc_per_node))
    if launch.devices is not None and len(launch.devices.split(",")) > 1:
        local_size = len(launch.devices.split(","))
        asked_by = ("--devices", launch.devices)
    elif machines > 1 and local_size == 1:
        asked_by = ("--nnodes", str(launch.nnodes))
    membership = find_membership(variables)
    if membership is None and local_size * machines == 1:
        membership = membership_of_slurm(variables)
    if membership is not None:
        asked_by = (membership.source, str(membership.size))
        return World(membership.size, membership.local_size, membership, asked_by)
    return World(local_size * machines, local_size, None, asked_by)
