"""How much memory this process has held at most."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_resident_bytes() -> int:
    """Return the largest resident size of this process so far.

    Linux's own figure in /proc is that of this program alone. ``ru_maxrss`` is kept across exec, so a process started
    by a large one would count its parent's memory as its own; it is read only where /proc is not there.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
