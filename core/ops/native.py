"""The compiled kernels of csrc/: found, checked against this CPU, and called through ctypes.

They are plain C functions over float32 pointers. Paddle is imported only to ask for its number of threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from paddle import Tensor
    from paddle.autograd import PyLayer

ABI = 4
"""Of the functions in csrc/; a library with another number was compiled from other sources."""

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "abi": (_I,),
    "set_threads": (None, _I),
    "norm_forward": (None, _P, _P, _P, _F, _L, _L, _P, _P, _P),
    "norm_backward": (None, _P, _P, _P, _P, _P, _L, _L, _P, _P, _P),
    "rotary": (None, _P, _P, _P, _F, _I, _L, _L, _L, _L, _L, _P),
    "swiglu_forward": (None, _P, _P, _L, _P),
    "swiglu_backward": (None, _P, _P, _P, _L, _P, _P),
    "cross_entropy": (ctypes.c_double, _P, _P, _L, _L, _L, _P),
    "adamw": (None, _P, _P, _P, _P, _P, _P, _P, _L, _P),
    "square_sum": (ctypes.c_double, _P, _P, _L),
    "attention_forward": (None, _P, _P, _P, _P, _P, _P),
    "attention_backward": (None, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P),
    "set_sgemm": (None, _P),
    "allow_avx512": (None, _I),
    "has_vnni": (_I,),
    "multiply": (None, _P, _P, _L, _P, _P),
    "paged_attention": (None, _P, _P, _P, _P),
    "decoder_step": (None, _P, _P),
    "use_huge_pages": (None, _P, _L),
}
"""Result, then arguments."""


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, ready to be called, or ``None`` where they cannot run."""
    return None if absence() else _open()


@cache
def absence() -> str:
    """Return why the kernels cannot run here, as half a sentence; empty where they can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the C++ kernels are written for x86-64, and this CPU is {platform.machine()}"
    missing = {"avx2", "f16c", "fma"} - _cpu_flags()
    if missing:
        return f"this CPU lacks {' and '.join(sorted(missing))}"
    if not _path().is_file():
        return "the C++ kernels were not compiled when llm-run was installed (no g++?)"
    if _open().llm_run_abi() != ABI:
        return f"{_path().name} was compiled from other sources; install llm-run again"
    return ""


def takes(tensor: Tensor) -> bool:
    """Say whether the kernels can read a tensor: float32, on CPU, and not a node of a static graph."""
    import paddle

    return (
        tensor.dtype == paddle.float32
        and isinstance(tensor, paddle.Tensor)
        and paddle.in_dynamic_mode()
        and tensor.place.is_cpu_place()
    )


def draws() -> bool:
    """Say whether operators are being put into a static graph, which holds Paddle's own ones only."""
    import paddle

    return not paddle.in_dynamic_mode()


def num_threads() -> int:
    """Return the threads that kernels use: ``OMP_NUM_THREADS``, else Paddle's own number."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if said.isdigit() and int(said) > 0:
        return int(said)
    import paddle

    return int(paddle.get_flags("FLAGS_paddle_num_threads")["FLAGS_paddle_num_threads"])


@cache
def kernel(name: str) -> Callable[..., Any]:
    """Return the C function ``llm_run_<name>``; pointers are given as integers, ``None`` for null."""
    kernels = library()
    assert kernels is not None, "native kernels are called only after select.uses_native"
    _prepare()
    return cast("Callable[..., Any]", getattr(kernels, f"llm_run_{name}"))


def differentiable(layer: type[PyLayer], *arguments: Any) -> Tensor:
    """Call a layer that has a backward pass of its own; ``apply`` of Paddle itself is not typed."""
    return cast("Tensor", layer.apply(*arguments))


def dense(tensor: Tensor) -> Tensor:
    """Return the tensor with its entries side by side in memory, copying only where they are not."""
    return tensor if tensor.is_contiguous() else tensor.contiguous()


@cache
def _open() -> ctypes.CDLL:
    # Two OpenMP runtimes share the process, Paddle's and ours: a waiting thread of one must not hold the core that
    # the other needs. Read when ours is loaded; a user's own word is left alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    opened = ctypes.CDLL(str(_path()))
    # One of other sources may lack functions; it is opened for its number only.
    signatures = _SIGNATURES if opened.llm_run_abi() == ABI else {}
    for name, (result, *arguments) in signatures.items():
        function = getattr(opened, f"llm_run_{name}")
        function.restype, function.argtypes = result, arguments
    return opened


@cache
def _prepare() -> None:
    """Done with the first call and not on opening, because it may have to ask Paddle."""
    _open().llm_run_set_threads(num_threads())
    _open().llm_run_set_sgemm(_sgemm())


def _sgemm() -> int | None:
    """Return where the matrix product of the BLAS is that Paddle has brought into the process; ``None``: not there."""
    import paddle

    for name in ("libmklml_intel.so", "libopenblas.so"):
        path = Path(paddle.__file__).parent / "libs" / name
        if path.is_file():
            function = getattr(ctypes.CDLL(str(path)), "cblas_sgemm", None)
            return ctypes.cast(function, ctypes.c_void_p).value if function else None
    return None


def _path() -> Path:
    return Path(__file__).with_name("_kernels" + sysconfig.get_config_var("EXT_SUFFIX"))


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())
