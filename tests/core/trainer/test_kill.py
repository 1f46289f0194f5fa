from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_runs_killed_with_sigkill_end_as_if_nothing_had_happened(project: Path) -> None:
    """The short form of the sweep over every step."""
    sweep = project / "benchmarks" / "resume_sweep.py"
    done = subprocess.run(
        [sys.executable, str(sweep), "--steps", "8", "--points", "1,4,7"], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["3 of 3 resumed runs are equal to the bit"], done.stdout + done.stderr
