"""Make ``gptq.npz``: what PaddleSlim's GPTQ makes of drawn matrices.

Run it in an environment of its own: ``paddlepaddle==3.3.1``, ``paddleslim==2.6.0`` without its dependencies, and what
``import paddleslim`` then asks for. On Paddle 3.3 it fails unless some input is never seen, so one never is.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import paddle
from paddleslim.quant.advanced import GPTQ

CASE = runpy.run_path(str(Path(__file__).with_name("gptq_case.py")))


def quantized(name: str) -> np.ndarray:
    """The dequantized weights [in, out] that PaddleSlim leaves in the layer."""
    weight, rows = CASE["drawn"](name)
    _, _, group, ordered = CASE["CASES"][name]
    layer = paddle.nn.Linear(*weight.shape, bias_attr=False)
    layer.weight.set_value(weight)
    gptq = GPTQ(layer)
    with paddle.no_grad():
        gptq(paddle.to_tensor(rows[None]))
        gptq.fasterquant(actorder=ordered, percdamp=CASE["DAMPING"], groupsize=group)
    return np.asarray(layer.weight.numpy())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("gptq.npz")
    np.savez_compressed(target, **{name: quantized(name) for name in CASE["CASES"]})
