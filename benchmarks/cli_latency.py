"""Time the answers that a person waits for: help, a refusal, the matrix. Paddle must not be imported for them.

python benchmarks/cli_latency.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "--help": ["--help"],
    "a refusal": ["--family", "nosuch", "--task", "pretrain"],
    "unknown option": ["--family", "llama", "--task", "pretrain", "--learning_rat", "1e-3"],
    "families": ["families"],
    "matrix": ["matrix"],
}
LIMIT_S = 0.5


def main() -> None:
    program = Path(sys.executable).parent / "llm-run"
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run([str(program), *arguments], capture_output=True, check=False)
            times.append(time.perf_counter() - start)
        median = statistics.median(times[1:])
        print(f"{name:15} median {median:.3f} s, worst {max(times[1:]):.3f} s ({'ok' if median < LIMIT_S else 'SLOW'})")


if __name__ == "__main__":
    main()
