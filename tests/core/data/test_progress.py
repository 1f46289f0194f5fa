"""Progress bars: where somebody watches, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from llm_run.core.data.progress import progress

CODE = """
import sys
from llm_run.core.data.progress import progress
with progress("counting sheep", 3, shown=sys.argv[1] == "1") as advance:
    for _ in range(3):
        advance(1)
"""


def written_to_terminal(shown: str) -> bytes:
    """What a process writes to a terminal."""
    parent, child = pty.openpty()
    subprocess.run([sys.executable, "-c", CODE, shown], stderr=child, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(child)
    written = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:
            break
        written += part
        if not part:
            break
    os.close(parent)
    return written


def test_a_terminal_sees_the_bar_unless_it_was_turned_off() -> None:
    assert b"counting sheep" in written_to_terminal("1")
    assert written_to_terminal("0") == b""


def test_a_file_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("counting sheep", None) as advance:
        advance(5)
    assert capsys.readouterr() == ("", "")
