"""``llm-run`` whose answers say when their tokens were chosen: the text of each is the clock's reading, in seconds.

Given to ``serving`` as the program; the clients read the same clock and know how long each token was on its way.
"""

from __future__ import annotations

import sys
import time

from llm_run.core.cli import main
from llm_run.core.engine.stream import TextStream


def now(self: TextStream, token: int) -> str:
    """Return the clock's reading in place of the token's text."""
    return f"{time.monotonic():.6f} "


if __name__ == "__main__":
    TextStream.push = now  # type: ignore[method-assign]
    TextStream.finish = lambda self: ""  # type: ignore[method-assign]
    sys.exit(main())
