"""Which variant of each operator runs, and why. Imports no Paddle."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from ..errors import Problem, RefusedError
from . import native

if TYPE_CHECKING:
    from paddle import Tensor

Variant = Literal["plain", "native"]
Preference = Literal["auto", "plain", "native"]

OPS = ("attention", "norm", "rotary", "swiglu", "cross_entropy", "adamw")
"""Operators that have variants. ``plain`` is composed of Paddle's own; ``native`` is C++ for float32 on CPU."""

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
        choice: ``auto`` takes ``native`` where this machine has it; ``native`` insists on it; ``plain`` avoids it.

    Raises:
        RefusedError: there is no such operator or variant, or ``native`` cannot run on this machine.
    """
    if op_name not in OPS:
        raise RefusedError(Problem("ops", repr(op_name), "is not an operator", f"Operators: {', '.join(OPS)}."))
    if choice not in ("auto", "plain", "native"):
        raise RefusedError(Problem(f"ops.{op_name}", repr(choice), "is not a variant", "Use auto, plain or native."))
    if choice == "native" and native.library() is None:
        reason = f"is not supported here: {native.absence()}"
        raise RefusedError(Problem(f"ops.{op_name}", "'native'", reason, "Use auto or plain."))
    _preferences[op_name] = choice
    _chosen.pop(op_name, None)


def choices() -> list[Choice]:
    """Return the variant of every operator and the reason, deciding those that have not been used yet."""
    return [_choose(op) for op in OPS]


def uses_native(op: str, *tensors: Tensor) -> bool:
    """Say whether ``op`` runs its C++ variant on these tensors: it is chosen, and all are float32 on CPU."""
    choice = _chosen.get(op) or _choose(op)
    if choice.variant == "plain":
        return False
    if all(native.takes(tensor) for tensor in tensors):
        return True
    decline(op, "it takes float32 tensors on CPU, outside of static graphs")
    return False


@cache
def decline(op: str, reason: str) -> None:
    """Log, once for each reason, that calls of ``op`` run the plain variant although ``native`` is chosen."""
    _log.info("%s: plain for some calls (native cannot do them: %s)", op, reason)


def _choose(op: str) -> Choice:
    if op in _chosen:
        return _chosen[op]
    if _preferences[op] != "auto":
        choice = Choice(op, _preferences[op], "asked for")  # type: ignore[arg-type]
    elif native.library() is None:
        choice = Choice(op, "plain", native.absence())
    else:
        choice = Choice(op, "native", "the C++ kernels are compiled, and this CPU has AVX2 and FMA")
    _chosen[op] = choice
    _log_once(op if _preferences[op] != "auto" else "operators", choice.variant, choice.reason)
    return choice


@cache
def _log_once(what: str, variant: str, reason: str) -> None:
    _log.info("%s: %s (%s)", what, variant, reason)
