"""Processes that work in turns, so that a change in the machine's load hits all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

Work = Callable[[], object]


def serve(work: Work) -> None:
    """Do one piece of work for each line of standard input, and print its seconds and its result."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    print("ready", file=answers)
    for _ in sys.stdin:
        start = time.perf_counter()
        result = work()
        print(json.dumps([time.perf_counter() - start, result]), file=answers)


class Side:
    """One of them: this script again, started with ``arguments``."""

    def __init__(
        self, arguments: Sequence[str], *, is_paddle: bool, interpreter: str = sys.executable, script: str = sys.argv[0]
    ) -> None:
        # Not at the top: another interpreter need not have llm-run to serve.
        from llm_run.core.launch.environment import cores, cpu_vendor, missing, wanted

        settings = wanted(threads=cores(), training=True, vendor=cpu_vendor())
        if not is_paddle:  # the others' own default is the better one for them
            settings = [setting for setting in settings if setting.name != "OMP_WAIT_POLICY"]
        environment = os.environ | missing(settings, os.environ, forced=frozenset())
        command = [interpreter, "-W", "ignore", script, *arguments]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._expect("ready")

    def work(self) -> tuple[float, object]:
        """Have one piece of work done; return its seconds and its result."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        seconds, result = json.loads(self._expect())
        return float(seconds), result

    def stop(self) -> None:
        self._process.communicate()

    def _expect(self, word: str = "") -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (word and line != word):
            sys.exit(f"{' '.join(map(str, self._process.args))} stopped; what it said is above")
        return line
