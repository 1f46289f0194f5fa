"""In which dtype is computed, and the loss scale that float16 needs."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import paddle

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..config.training import TrainingOptions

_log = logging.getLogger("llm_run.trainer")

GROWTH_INTERVAL = 2000
"""Finite steps after which the loss scale is doubled."""
MAX_SCALE = 2.0**24


@dataclass(slots=True)
class LossScale:
    """Dynamic loss scale: halved at every overflow, doubled after ``GROWTH_INTERVAL`` steps without one.

    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    """

    value: float = 1.0
    dynamic: bool = False
    good_steps: int = 0

    def succeeded(self) -> None:
        """Count a step with finite gradients."""
        if not self.dynamic:
            return
        self.good_steps += 1
        if self.good_steps >= GROWTH_INTERVAL:
            self.value = min(self.value * 2.0, MAX_SCALE)
            self.good_steps = 0

    def overflowed(self) -> bool:
        """Halve the scale after an overflow; False where it cannot be lowered, so that the scale is not to blame."""
        self.good_steps = 0
        if not self.dynamic or self.value <= 1.0:
            return False
        self.value = max(self.value / 2.0, 1.0)
        return True


Dtype = Literal["float32", "bfloat16", "float16"]


def on_gpu() -> bool:
    """Whether tensors live on a GPU."""
    return str(paddle.device.get_device()).startswith("gpu")


class Precision:
    """How forward passes compute. Parameters, gradients and optimizer state are float32 throughout.

    On a GPU, ``bf16`` and ``fp16`` let Paddle's autocast (O1) run matrix products in 16 bits, with the float32
    parameters as master weights. A CPU has no 16-bit kernels in Paddle, so there everything is float32.
    """

    def __init__(self, options: TrainingOptions) -> None:
        wanted: Dtype = "bfloat16" if options.bf16 else "float16" if options.fp16 else "float32"
        if wanted != "float32" and not on_gpu():
            _log.info("%s: a CPU computes in float32 only, so float32 it is", "bf16" if options.bf16 else "fp16")
        self.dtype: Dtype = wanted if on_gpu() else "float32"
        self.scale = LossScale(options.scale_loss, dynamic=True) if self.dtype == "float16" else LossScale()

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which forward passes run."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        autocast: AbstractContextManager[None] = paddle.amp.auto_cast(level="O1", dtype=self.dtype)
        return autocast
