"""What a server asks of the interpreter before it listens: no long pauses among streams."""

from __future__ import annotations

import gc


def keep_loaded() -> None:
    """Take what is loaded by now for permanent.

    Half a million objects of the libraries live as long as the process. A full collection walks over all of them while
    no thread can run, which took 60 to 100 ms on the machine that this was measured on, in the middle of streams.
    """
    gc.collect()
    gc.freeze()
