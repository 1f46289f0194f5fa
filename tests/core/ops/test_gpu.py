"""The choice of Paddle's fused GPU kernels, on a device that pretends to be one.

The kernels themselves cannot run here. In the tests of each operator stand in their place functions that compute in
float32 what Paddle 3.3 documents, or, where the operator runs on a CPU as well, Paddle's own.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import paddle
import paddle.nn.functional as F
import pytest
from paddle.incubate.nn import functional as fused
from paddle.nn import quant

from llm_run.core.errors import RefusedError
from llm_run.core.ops import choices, gpu, prefer, select, swiglu

flash = import_module("paddle.nn.functional.flash_attention")
SIGNATURES = {
    F.rms_norm: "input, normalized_shape, weight, eps, name",
    F.swiglu: "x, y, name",
    F.layer_norm: "x, normalized_shape, weight, bias, epsilon, name",
    fused.fused_rotary_position_embedding: (
        "q, k, v, sin, cos, position_ids, use_neox_rotary_style, time_major, rotary_emb_base"
    ),
    flash.flash_attention: (
        "query, key, value, dropout, causal, return_softmax, fixed_seed_offset, rng_name, training, name, softmax_scale"
    ),
    flash.flashmask_attention: (
        "query, key, value, startend_row_indices, dropout, causal, window_size, return_softmax_lse, "
        "return_seed_offset, fixed_seed_offset, rng_name, training, name, softmax_scale, block_mask"
    ),
    flash.flash_attn_unpadded: (
        "query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, dropout, causal, "
        "return_softmax, fixed_seed_offset, rng_name, training, name"
    ),
    quant.weight_only_linear: "x, weight, bias, weight_scale, weight_dtype, arch, group_size",
    quant.llm_int8_linear: "x, weight, bias, weight_scale, threshold",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__name__)
def test_paddle_has_the_function_with_the_arguments_that_we_give(function: Any) -> None:
    assert ", ".join(inspect.signature(function).parameters) == SIGNATURES[function]


def test_here_no_gpu_computes_and_the_reason_is_said() -> None:
    assert gpu.absence() in (
        "the installed Paddle is built for CPUs",
        "no GPU was found",
        "the run computes on the CPU",
    )
    assert {choice.variant for choice in choices()} <= {"plain", "native"}
    with pytest.raises(RefusedError, match=r"ops\.norm: 'gpu' is not supported here: "):
        prefer("norm", "gpu")


def test_on_a_gpu_the_fused_kernels_are_chosen_and_called_untested(on_gpu: None) -> None:
    found = {choice.op: choice for choice in choices()}
    assert {op for op, choice in found.items() if choice.variant == "gpu"} == set(gpu.OPS)
    assert all("untested" in found[op].reason for op in gpu.OPS)
    assert found["adamw"].variant == found["cross_entropy"].variant == "plain"
    assert select.fused() == "gpu"


def test_a_preference_for_plain_holds_on_a_gpu(on_gpu: None, stand_in: Any, random: Any) -> None:
    called = stand_in(F, "swiglu", F.swiglu)
    prefer("swiglu", "plain")
    swiglu(paddle.to_tensor(random(2, 4)), paddle.to_tensor(random(2, 4)))
    assert called == []
