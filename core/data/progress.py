"""A progress bar on long work, where somebody watches."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(title: str, total: float | None, *, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error while the block runs; none where that is not a terminal.

    Args:
        title: what is being done.
        total: amount of work, in any unit; ``None``: not known.
        shown: False turns the bar off (``--disable_tqdm``).

    Yields:
        A function that adds to the work done.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    done = "{task.completed:.0f}" if total is None else "{task.percentage:>3.0f}%"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(done),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total)
        yield lambda amount: bars.advance(task, amount)
