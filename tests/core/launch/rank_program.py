"""Run by ranks under the launcher: they meet 25 times, unless the scenario says what happens to rank 1 instead."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from llm_run.core.config.groups import LaunchOptions
from llm_run.core.errors import DataError
from llm_run.core.launch.record import note_end, note_failure
from llm_run.core.launch.start import _as_rank
from llm_run.core.launch.world import find_world
from llm_run.core.parallel.membership import Membership
from llm_run.core.parallel.rendezvous import accept_all, connect, listen
from llm_run.core.parallel.wire import Wire
from llm_run.core.trainer.signals import StopRequest

STEPS = 25


def met(membership: Membership, timeout_s: float) -> Wire:
    """Return the wire of all ranks; without Paddle, which these tests do not need in the ranks."""
    ranks = tuple(range(membership.size))
    if membership.rank == 0:
        return accept_all(listen(membership.master[1]), ranks, token="t", timeout_s=timeout_s)
    return connect(membership.master, ranks, membership.rank, token="t", timeout_s=timeout_s)


def act(scenario: str) -> None:
    """Do to this rank what the scenario says."""
    if scenario == "error":
        raise DataError("corpus.jsonl: line 3 is not JSON\ncorpus.jsonl: line 9 is not JSON")
    if scenario == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if scenario == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if scenario in ("signal", "drain"):
        os.kill(int(os.environ["TELL"]), signal.SIGTERM)


def run(scenario: str, membership: Membership, timeout_s: float) -> int:
    """Meet in every step, and return the exit status."""
    if scenario == "early signal" and membership.rank == 1:
        os.kill(int(os.environ["TELL"]), signal.SIGTERM)
        time.sleep(60)  # preparing data
    wire = met(membership, timeout_s)
    try:
        with StopRequest() as stop:
            print(f"rank {membership.rank} says hello", flush=True)
            for step in range(STEPS):
                if step == 3 and membership.rank == 1:
                    act(scenario)
                if any(wire.exchange_json(stop.exit_status, f"step {step}")):
                    time.sleep(1.5 * membership.rank)  # one rank saves for longer than the other
                    print(f"rank {membership.rank} saves step {step}", flush=True)
                    return 0 if scenario == "drain" else 143  # a server is done when it has left in order
                time.sleep(0.02)
        return 0
    except BaseException as error:
        note_failure(error)
        raise
    finally:
        wire.close()


def main(scenario: str, timeout_s: float) -> int:
    """Be one rank."""
    logging.basicConfig()
    world = find_world(LaunchOptions())
    if scenario == "stillborn" and os.environ["PADDLE_TRAINER_ID"] == "1":
        raise ImportError("libfabric.so is missing")
    with _as_rank(world):
        assert world.membership is not None
        status = run(scenario, world.membership, timeout_s)
    note_end(status)
    return 0


sys.exit(main(sys.argv[1], float(sys.argv[2])))
