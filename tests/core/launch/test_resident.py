"""The peak that a run reports is its own, not that of the process that started it."""

from __future__ import annotations

import subprocess
import sys

from llm_run.core.launch.resident import peak_resident_bytes

CHILD = "from llm_run.core.launch.resident import peak_resident_bytes; print(peak_resident_bytes())"


def test_a_large_parent_is_not_counted() -> None:
    held = bytearray(400_000_000)
    child = int(subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout)
    assert len(held) < peak_resident_bytes()
    assert child < 200_000_000
