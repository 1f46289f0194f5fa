"""Importing Paddle without noise, and choosing a device."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from llm_run.core.errors import LlmRunError, RefusedError
from llm_run.core.launch import framework
from llm_run.core.launch.framework import choose_device, import_paddle, installed_paddle


def test_paddle_is_imported_without_a_word() -> None:
    code = "from llm_run.core.launch.framework import import_paddle; import_paddle().ones([2]) + 1"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "2"}
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_machine_without_paddle_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LlmRunError) as caught:
        import_paddle()
    assert str(caught.value) == (
        "PaddlePaddle is not installed. On a CPU: pip install 'llm-run[cpu]'. "
        "On a GPU: install paddlepaddle-gpu 3.3 from Paddle's own index for your CUDA version."
    )


def test_another_version_of_paddle_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(framework, "installed_paddle", lambda: ("paddlepaddle", "2.6.2"))
    import_paddle()
    assert "Paddle 2.6.2 is installed; llm-run is tested with 3.3" in caplog.text


def test_the_installed_distribution_is_named() -> None:
    found = installed_paddle()
    assert found is not None
    assert found[0] in framework.DISTRIBUTIONS


def test_auto_and_cpu_work_everywhere() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "gpu")


@pytest.mark.parametrize(
    ("wanted", "number", "said"),
    [
        ("gpu", None, "--device: 'gpu' is not available here: the installed Paddle is built for CPUs. "),
        ("auto", "1", "--devices: 1 is not available here: the installed Paddle is built for CPUs. "),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(wanted: str, number: str | None, said: str) -> None:
    if import_paddle().is_compiled_with_cuda():
        pytest.skip("this Paddle is built for GPUs")
    with pytest.raises(RefusedError) as caught:
        choose_device(wanted, number)
    assert str(caught.value) == f"{said}Leave it out, or use --device cpu."
