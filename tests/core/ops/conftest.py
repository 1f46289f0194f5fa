"""Both variants of an operator, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import paddle
import pytest

from llm_run.core.ops import native, prefer
from llm_run.core.ops.select import OPS


@pytest.fixture(autouse=True)
def _every_operator_chooses_by_itself() -> Iterator[None]:
    yield
    for op in OPS:
        prefer(op, "auto")


@pytest.fixture(params=["plain", "native"])
def variant(request: pytest.FixtureRequest) -> str:
    """Run the test with each variant of every operator."""
    if request.param == "native" and native.library() is None:
        pytest.skip(f"no native kernels: {native.absence()}")
    for op in OPS:
        prefer(op, request.param)
    return str(request.param)


@pytest.fixture
def kernels() -> None:
    """Run the test with the C++ kernels."""
    if native.library() is None:
        pytest.skip(f"no native kernels: {native.absence()}")
    for op in OPS:
        prefer(op, "native")


@pytest.fixture
def random() -> Callable[..., np.ndarray]:
    """Normal float32 numbers, the same in every run."""
    source = np.random.default_rng(7)
    return lambda *shape: source.standard_normal(shape).astype(np.float32)


@pytest.fixture
def learnt() -> Callable[[np.ndarray], paddle.Tensor]:
    """Make a tensor that gradients flow into."""
    return lambda array: paddle.to_tensor(array, stop_gradient=False)
