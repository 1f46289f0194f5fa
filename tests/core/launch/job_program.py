"""Run by tests in a process of its own: two ranks under the launcher, as ``start`` would run them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llm_run.core.config.groups import LaunchOptions
from llm_run.core.launch.processes import launcher_command, launcher_environment
from llm_run.core.launch.supervise import supervise
from llm_run.core.launch.world import find_world


def main(scenario: str, folder: Path, timeout_s: float) -> int:
    """Launch and watch."""
    launch = LaunchOptions(nproc_per_node=2)
    target = [sys.executable, str(Path(__file__).parent / "rank_program.py"), scenario, str(timeout_s)]
    settings = {"OMP_NUM_THREADS": "1", "TELL": str(os.getpid())}
    return supervise(
        launcher_command(target, launch, find_world(launch), folder),
        launcher_environment(os.environ, launch, settings, folder),
        folder,
        processes=2,
        timeout_s=60,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
