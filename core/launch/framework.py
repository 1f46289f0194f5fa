"""Paddle itself: whether it is installed, importing it without noise, and the device that it computes on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import warnings
from typing import Any

from ..errors import LlmRunError, Problem, RefusedError

DISTRIBUTIONS = ("paddlepaddle-gpu", "paddlepaddle")
TESTED = "3.3"
log = logging.getLogger("llm_run.launch")


def installed_paddle() -> tuple[str, str] | None:
    """Return name and version of the installed Paddle distribution, without importing it."""
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name, importlib.metadata.version(name)
    return None


def require_paddle() -> None:
    """Make sure that Paddle is installed, without importing it.

    Raises:
        LlmRunError: it is not; the text says which distribution to install.
    """
    if importlib.util.find_spec("paddle") is None:
        raise LlmRunError(
            "PaddlePaddle is not installed. On a CPU: pip install 'llm-run[cpu]'. "
            "On a GPU: install paddlepaddle-gpu 3.3 from Paddle's own index for your CUDA version."
        )


def import_paddle() -> Any:
    """Import Paddle with nothing printed, and return it.

    Raises:
        LlmRunError: it is not installed; the text says which distribution to install.
    """
    require_paddle()
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(said):
            warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
            import paddle
    except ImportError as error:
        raise LlmRunError(f"PaddlePaddle cannot be imported: {error}. Install it anew.") from error
    _, version = installed_paddle() or ("", "unknown")
    if not version.startswith(f"{TESTED}."):
        log.warning("Paddle %s is installed; llm-run is tested with %s", version, TESTED)
    return paddle


def choose_device(wanted: str, number: str | None = None, *, local_rank: int | None = None) -> str:
    """Make Paddle compute on ``wanted`` (auto, cpu or gpu) and return what it is.

    Args:
        wanted: of ``--device``.
        number: of the GPU, from ``--devices`` or the launcher; asking for one asks for a GPU.
        local_rank: of one of several processes of this machine that nobody gave a GPU to: they take turns.

    Raises:
        RefusedError: a GPU is asked for and it is not there.
    """
    paddle = import_paddle()
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if (wanted == "gpu" or number is not None) and not gpus:
        cause = "no GPU was found" if paddle.is_compiled_with_cuda() else "the installed Paddle is built for CPUs"
        key, value = ("--device", "'gpu'") if number is None else ("--devices", number)
        raise RefusedError(Problem(key, value, f"is not available here: {cause}", "Leave it out, or use --device cpu."))
    if number is not None and number not in map(str, range(gpus)):
        raise RefusedError(Problem("--devices", number, "is not a GPU of this machine", f"It has 0 to {gpus - 1}."))
    if number is None and local_rank is not None and gpus:
        number = str(local_rank % gpus)
    if not gpus or wanted == "cpu":
        paddle.set_device("cpu")
        return "cpu"
    paddle.set_device("gpu" if number is None else f"gpu:{number}")
    return "gpu"
