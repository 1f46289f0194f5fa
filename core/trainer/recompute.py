"""Activation recomputation, as a transformation of a built model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import paddle
from paddle.distributed.fleet.utils import recompute

from ..ops.masked_attention import forgotten_scores

if TYPE_CHECKING:
    from ..causal_lm import CausalLM


def apply_recompute(model: CausalLM, granularity: str) -> None:
    """Make blocks forget their activations in training and compute them again in the backward pass.

    Args:
        model: changed in place; parameter names stay as they are. Its blocks have their attention as ``attention``.
        granularity: ``full`` forgets whole blocks, ``full_attn`` their attention with its projections, ``core_attn``
            what lies between queries, keys, values and the attention's output.

    Source: Chen et al. 2016, arXiv:1604.06174; Korthikanti et al. 2022, arXiv:2205.05198, for ``core_attn``.
    """
    for block in model.blocks:
        layer = block if granularity == "full" else block.attention
        wrap = _without_scores if granularity == "core_attn" else _recomputed
        # On the object, not its class: other models of this process are left alone.
        object.__setattr__(layer, "forward", wrap(layer.forward))


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        if not paddle.is_grad_enabled():
            return forward(*inputs)
        return recompute(forward, *inputs, use_reentrant=False)

    return run


def _without_scores(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        with forgotten_scores():
            return forward(*inputs)

    return run
