"""Mistakes that parallel training could have, to show that the comparison of ``layouts.py`` would notice them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

DEFECTS = {
    "gradients are not summed over samples": "dp2",
    "new parameters are not gathered": "stage1 x 2",
    "gradients of the hidden states are not summed": "tp2",
    "gradients of norms are not summed over tokens": "tp2 + sp",
    "gradients of the tied embedding are not summed": "pp2",
    "gradients are not summed over parts of a row": "sep2",
}
"""What is wrong, and under which layout that matters. The embedding is tied in opt, for one."""


@contextlib.contextmanager
def broken(defect: str) -> Iterator[None]:
    """Make a mistake in all that is trained meanwhile; none where its name is empty."""
    if not defect:
        yield
        return
    owner, name, replacement = _places()[defect]
    right = vars(owner)[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, right)


def _places() -> dict[str, tuple[Any, str, Any]]:
    """Return of each defect what has the right function, its name, and the wrong one."""
    from llm_run.core.parallel import differentiable
    from llm_run.core.parallel.data_parallel import Replicated
    from llm_run.core.parallel.pipeline.passes import Pipeline
    from llm_run.core.parallel.sharding import Sharded
    from llm_run.core.parallel.tensor import apply

    def nothing(*_: Any) -> None:
        """Leave out what should be done."""

    def own(ctx: Any, gradient: Any) -> Any:
        return gradient.clone()

    return dict(
        zip(
            DEFECTS,
            (
                (Replicated, "reduce", nothing),
                (Sharded, "publish", nothing),
                (differentiable._CopyThenReduce, "backward", staticmethod(own)),
                (apply, "sum_gradient", nothing),
                (Pipeline, "_sum_tied_gradients", nothing),
                (Replicated, "reduce", nothing),
            ),
            strict=True,
        )
    )
