"""Both variants of an operator, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.ops import attention_gpu, gpu, native, prefer, quantized_linear_gpu, select
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


@pytest.fixture(params=[True, False], ids=["avx512", "avx2"])
def instructions(request: pytest.FixtureRequest, kernels: None) -> Iterator[None]:
    """Run the test with the instructions of this CPU, and with those that every supported one has."""
    if request.param and not native.kernel("has_vnni")():
        pytest.skip("this CPU has no AVX-512 VNNI")
    native.kernel("allow_avx512")(int(request.param))
    yield
    native.kernel("allow_avx512")(1)


@pytest.fixture
def random() -> Callable[..., np.ndarray]:
    """Normal float32 numbers, the same in every run."""
    source = np.random.default_rng(7)
    return lambda *shape: source.standard_normal(shape).astype(np.float32)


@pytest.fixture
def learnt() -> Callable[[np.ndarray], paddle.Tensor]:
    """Make a tensor that gradients flow into."""
    return lambda array: paddle.to_tensor(array, stop_gradient=False)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a CPU pass for a GPU, and float32 for 16 bits."""
    monkeypatch.setattr(gpu, "absence", lambda: "")
    monkeypatch.setattr(gpu, "takes", lambda tensor: True)
    monkeypatch.setattr(native, "takes", lambda tensor: False)
    for module in (attention_gpu, quantized_linear_gpu):
        monkeypatch.setattr(module, "is_half", lambda tensor: True)
    monkeypatch.setattr(quantized_linear_gpu, "has_tensor_cores", lambda: True)
    select._chosen.clear()
    yield
    select._chosen.clear()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Callable[..., Any]], list[str]]:
    """Return a function that puts another one in the place of a kernel of Paddle; its list holds the names of those
    that were called."""
    called: list[str] = []

    def put(owner: Any, name: str, function: Callable[..., Any]) -> list[str]:
        def noted(*arguments: Any, **named: Any) -> Any:
            called.append(name)
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, noted)
        return called

    return put


@pytest.fixture
def plain_too() -> Callable[[Callable[[], paddle.Tensor]], tuple[np.ndarray, np.ndarray]]:
    """Return a function that computes with the variants that are chosen, and with the plain ones."""

    def both(compute: Callable[[], paddle.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        found = compute().numpy()
        before = dict(select._chosen)
        for op in select.ALL_OPS:
            select._chosen[op] = select.Choice(op, "plain", "")
        expected = compute().numpy()
        select._chosen.clear()
        select._chosen.update(before)
        return found, expected

    return both
