from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import paddle
import pytest

from llm_run.core.ops import native


@pytest.fixture
def asked_anew() -> Iterator[None]:
    native.absence.cache_clear()
    yield
    native.absence.cache_clear()


def test_a_cpu_without_avx2_gets_no_kernels(asked_anew, monkeypatch):
    monkeypatch.setattr(native, "_cpu_flags", lambda: {"fma", "avx", "f16c"})
    assert native.absence() == "this CPU lacks avx2"


def test_another_architecture_gets_no_kernels(asked_anew, monkeypatch):
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    assert native.absence() == "the C++ kernels are written for x86-64, and this CPU is aarch64"


def test_kernels_that_were_not_compiled_are_said_to_be_missing(asked_anew, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_cpu_flags", lambda: {"fma", "avx2", "f16c"})
    monkeypatch.setattr(native, "_path", lambda: tmp_path / "_kernels.so")
    assert native.absence() == "the C++ kernels were not compiled when llm-run was installed (no g++?)"


def test_kernels_of_other_sources_are_not_used(kernels, asked_anew, monkeypatch):
    monkeypatch.setattr(native, "ABI", 0)
    assert re.fullmatch(r"_kernels\S+ was compiled from other sources; install llm-run again", native.absence())


def test_the_sources_have_the_abi_number_that_is_asked_for(project: Path):
    source = (project / "core/ops/csrc/threads.cpp").read_text(encoding="utf-8")
    assert f"return {native.ABI};" in source


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("2,4", 2), ("many", None), ("", None)])
def test_threads_are_those_of_the_environment_or_of_paddle(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    paddles = paddle.get_flags("FLAGS_paddle_num_threads")["FLAGS_paddle_num_threads"]
    assert native.num_threads() == (threads or paddles)


def test_one_thread_and_four_give_the_same_to_rounding(kernels, project):
    """Threads are fixed when the library is opened, so each number needs a process of its own."""
    code = """
import numpy as np, paddle
from llm_run.core import ops
random = np.random.default_rng(0)
q, k, v = (paddle.to_tensor(random.standard_normal((2, 300, 8, 16)).astype("f"), stop_gradient=False) for _ in range(3))
weight = paddle.ones([16]); weight.stop_gradient = False
ops.rms_norm(ops.attention(q, k, v, ops.AttentionMask()), weight, eps=1e-5).square().sum().backward()
print(*np.concatenate([t.grad.numpy().ravel()[:500] for t in (q, k, v, weight)]))
"""

    def run(threads: int) -> list[float]:
        environment = {"OMP_NUM_THREADS": str(threads), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    assert run(4) == pytest.approx(run(1), abs=1e-4, rel=1e-4)
    assert run(2) == run(2)


def test_a_call_of_few_elements_wakes_no_threads(kernels):
    """A team costs more than one decoded row: a kernel makes its threads with the first large call."""
    code = """
import os, paddle
from llm_run.core import ops
def threads_after(rows):
    x, weight = paddle.ones([rows, 64]), paddle.ones([64])
    ops.rms_norm(x, weight, eps=1e-5), ops.swiglu(x, x)
    q = paddle.ones([1, 1, 4, 64]), paddle.ones([1, rows, 4, 64]), paddle.ones([1, rows, 4, 64])
    ops.attention(*q, ops.AttentionMask())
    return len(os.listdir("/proc/self/task"))
print(*(threads_after(rows) for rows in (1, 100, 2000)))
"""
    environment = {"OMP_NUM_THREADS": "4", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    one, few, many = (int(word) for word in done.stdout.split())
    assert (few - one, many - few) == (0, 3)


def test_a_strided_tensor_is_copied_and_a_dense_one_is_not(random: Callable[..., object]):
    tensor = paddle.to_tensor(random(4, 6))
    assert native.dense(tensor).data_ptr() == tensor.data_ptr()
    turned = native.dense(tensor.transpose([1, 0]))
    assert turned.is_contiguous()
    assert (turned.numpy() == tensor.numpy().T).all()


def test_asking_for_the_choices_imports_no_paddle():
    code = "import sys; from llm_run.core.ops import choices; choices(); sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PATH": "/usr/bin:/bin"}, check=False).returncode == 0
