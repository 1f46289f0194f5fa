"""Which variant of each operator runs, and why. Importing this imports no Paddle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from ..errors import Problem, RefusedError
from . import gpu, native

if TYPE_CHECKING:
    from paddle import Tensor

Variant = Literal["plain", "native", "gpu"]
Preference = Literal["auto", "plain", "native", "gpu"]

OPS = ("attention", "norm", "rotary", "swiglu", "cross_entropy", "adamw")
"""Operators that have variants. ``plain`` is composed of Paddle's own; ``native`` is C++ for float32 on CPU; ``gpu``
is a fused kernel of Paddle's, which those of ``gpu.OPS`` have."""
ALL_OPS = (*OPS, *(op for op in gpu.OPS if op not in OPS))

_log = logging.getLogger("llm_run.ops")


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant of one operator, and what decided it."""

    op: str
    variant: Variant
    reason: str


_preferences: dict[str, Preference] = dict.fromkeys(OPS, "auto")
_chosen: dict[str, Choice] = {}


def prefer(op_name: str, choice: Preference) -> None:
    """Set which variant an operator uses from now on.

    Args:
        op_name: one of ``OPS``.
        choice: ``auto`` takes what is fused for the device that computes; ``native`` and ``gpu`` insist on it;
            ``plain`` avoids it.

    Raises:
        RefusedError: there is no such operator or variant, or it cannot run on this machine.
    """
    if op_name not in OPS:
        raise RefusedError(Problem("ops", repr(op_name), "is not an operator", f"Operators: {', '.join(OPS)}."))
    allowed = ("auto", "plain", "native", *(("gpu",) if op_name in gpu.OPS else ()))
    if choice not in allowed:
        remedy = f"Use {', '.join(allowed[:-1])} or {allowed[-1]}."
        raise RefusedError(Problem(f"ops.{op_name}", repr(choice), "is not a variant", remedy))
    cause = native.absence() if choice == "native" else gpu.absence() if choice == "gpu" else ""
    if cause:
        reason = f"is not supported here: {cause}"
        raise RefusedError(Problem(f"ops.{op_name}", repr(choice), reason, "Use auto or plain."))
    _preferences[op_name] = choice
    _chosen.pop(op_name, None)


def choices() -> list[Choice]:
    """Return the variant of every operator and the reason, deciding those that have not been used yet."""
    return [_choose(op) for op in ALL_OPS]


def fused() -> Literal["native", "gpu"]:
    """Return the variant that is fused for the device that computes."""
    return "native" if gpu.absence() else "gpu"


def uses_native(op: str, *tensors: Tensor) -> bool:
    """Say whether ``op`` runs its C++ variant on these tensors: it is chosen, and all are float32 on CPU."""
    choice = _chosen.get(op) or _choose(op)
    if choice.variant != "native":
        return False
    if all(native.takes(tensor) for tensor in tensors):
        return True
    if not native.draws():
        decline(op, "it takes float32 tensors on CPU")
    return False


def uses_gpu(op: str, *tensors: Tensor) -> bool:
    """Say whether ``op`` runs Paddle's fused kernel on these tensors: it is chosen, and all are on a GPU."""
    choice = _chosen.get(op) or _choose(op)
    return choice.variant == "gpu" and all(gpu.takes(tensor) for tensor in tensors)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Within the block every operator runs its plain variant, whatever was chosen."""
    before = dict(_chosen)
    _chosen.update({op: Choice(op, "plain", "asked for") for op in ALL_OPS})
    try:
        yield
    finally:
        _chosen.clear()
        _chosen.update(before)


@cache
def decline(op: str, reason: str) -> None:
    """Log, once for each reason, that calls of ``op`` run the plain variant although another one is chosen."""
    _log.info("%s: plain for some calls (%s cannot do them: %s)", op, _choose(op).variant, reason)


def _choose(op: str) -> Choice:
    if op in _chosen:
        return _chosen[op]
    if _preferences.get(op, "auto") != "auto":
        choice = Choice(op, _preferences[op], "asked for")  # type: ignore[arg-type]
    elif not gpu.absence():
        is_fused = op in gpu.OPS
        choice = Choice(op, "gpu", gpu.UNTESTED) if is_fused else Choice(op, "plain", "a GPU computes")
    elif op not in OPS:
        choice = Choice(op, "plain", "in the steps of decoding, C++ kernels take its place")
    elif native.library() is None:
        choice = Choice(op, "plain", native.absence())
    else:
        choice = Choice(op, "native", "the C++ kernels are compiled, and this CPU has AVX2 and FMA")
    _chosen[op] = choice
    if op in OPS:
        _log_once(op if _preferences[op] != "auto" else "operators", choice.variant, choice.reason)
    return choice


@cache
def _log_once(what: str, variant: str, reason: str) -> None:
    _log.info("%s: %s (%s)", what, variant, reason)
