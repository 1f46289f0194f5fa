"""Finds out whether the C++ step can do what a model does, and describes the model to it.

Nothing here knows a family: a model is read by the names that ``core.layers`` gives to the parts of a block, and then
one block is run both ways. What computes otherwise runs plain, and the reason is logged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn

from ..adapters.switched import SwitchedLinear
from ..causal_lm import CausalLM
from ..layers import Decoder, LayerNorm, PreNormBlock, RmsNorm
from ..ops import native
from ..ops.decoder_step import ACTIVATIONS, DecoderPlan, DecoderStep, Layer, Norm, Pages, StepRows
from ..ops.mask import AttentionMask
from ..ops.matrix import Rounding, float_matrix, integer_matrix, why_not_packed
from ..quant.layer import QuantizedLinear
from .runner import inference
from .step_inputs import EmbeddingRows, PositionTables

if TYPE_CHECKING:
    from ..ops.matrix import Matrix

PROBE = 5
"""Tokens that a block is tried with."""
TOLERANCE, ROUGH_TOLERANCE = 1e-3, 2e-2
"""Largest difference of the probe, in units of its largest number: the error of packed integers is below. The second
where blocks of activations are of 8 bits: the last bit of a float may decide for another code, and a code is 0.8 %."""

_ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"}
_FEED_FORWARD_PARTS = {"gate_proj", "up_proj", "down_proj"}


class NotCoveredError(Exception):
    """The C++ step cannot do what the model does; the text is half a sentence."""


def plan_decoder(model: CausalLM) -> DecoderPlan:
    """Describe a model to the C++ step.

    Matrices of floats are used where they lie; those of integers are packed, which copies them.

    Raises:
        NotCoveredError: the model has a part that the step does not have, or this machine cannot run the kernels.
    """
    _demand(native.library() is not None, native.absence())
    _demand(model.parameters()[0].place.is_cpu_place(), "its weights are not on the CPU")
    _demand(isinstance(model, Decoder) and type(model).forward is CausalLM.forward, "it is no plain decoder")
    _demand(not model.config.prefix_lm, "its prompts see themselves both ways")
    _demand(model.split_loss is None, "it is split over several processes")
    layers = tuple(_layer(block) for block in model.blocks)
    attention = model.blocks[0].attention
    rotary = getattr(model.config, "rotary", None)
    has_own_finish = type(model).finish is not Decoder.finish
    plan = DecoderPlan(
        layers=layers,
        num_heads=layers[0].q.table.outputs // attention.head_dim,
        num_kv_heads=layers[0].k.table.outputs // attention.head_dim,
        head_dim=attention.head_dim,
        activation=model.blocks[0].feed_forward.activation,
        rotary_pairs=0 if rotary is None else rotary.dim // 2,
        rotary_interleaved=rotary is not None and rotary.style == "interleaved",
        slopes_N=getattr(attention, "slopes_N", None),
        norm=None if has_own_finish else _norm(model.norm),
        head=None if has_own_finish or type(model).head is not Decoder.head else _head(model),
    )
    _demand(_agrees(model, plan), "its first block computes something else than the step would")
    return plan


def _layer(block: Any) -> Layer:
    is_pre_norm = isinstance(block, PreNormBlock) or getattr(block, "is_pre_norm", False)
    _demand(is_pre_norm, "its blocks do not normalise what goes in")
    attention, feed_forward = block.attention, block.feed_forward
    for part, known in ((attention, _ATTENTION_PARTS), (feed_forward, _FEED_FORWARD_PARTS)):
        unknown = {name for name, _ in part.named_children()} - known
        _demand(not unknown, f"its {type(part).__name__} has {', '.join(sorted(unknown))}")
    _demand(getattr(feed_forward, "activation", None) in ACTIVATIONS, "its activation is not known")
    gate = getattr(feed_forward, "gate_proj", None)
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    layer = Layer(
        attention_norm=_norm(block.attention_norm),
        q=_matrix(attention.q_proj), k=_matrix(attention.k_proj), v=_matrix(attention.v_proj),
        o=_matrix(attention.o_proj),
        ffn_norm=_norm(block.ffn_norm),
        gate=None if gate is None else _matrix(gate),
        up=_matrix(feed_forward.up_proj), down=_matrix(feed_forward.down_proj),
        q_norm=None if q_norm is None else _norm(q_norm), k_norm=None if k_norm is None else _norm(k_norm),
    )  # fmt: skip
    for readers in ((layer.q, layer.k, layer.v), (layer.up, layer.gate)):
        kinds = {matrix.activations for matrix in readers if matrix is not None}
        _demand(len(kinds) == 1, "matrices that read the same numbers have them rounded differently")
    return layer


def _norm(layer: nn.Layer) -> Norm:
    _demand(type(layer) in (RmsNorm, LayerNorm), f"it has a {type(layer).__name__}")
    bias = getattr(layer, "bias", None)
    wide_bias = None if bias is None else bias.detach().astype("float32")
    return Norm(layer.weight.detach().astype("float32"), wide_bias, layer.eps)


def _matrix(layer: nn.Layer) -> Matrix:
    if type(layer) is QuantizedLinear:
        adjusted = layer.adjustment.shift_I is not None or layer.adjustment.factor_I is not None
        _demand(not adjusted, "inputs of its integer matrices are scaled")
        reason = why_not_packed(layer.quantized)
        _demand(not reason, reason)
        bias_O = layer.added_bias_O if layer.bias is None else layer.bias
        if layer.inputs is None:
            return integer_matrix(layer.quantized, bias_O)
        rounding = Rounding.EIGHT_BITS if layer.inputs.by_block else Rounding.EIGHT_BITS_BY_ROW
        return integer_matrix(layer.quantized, bias_O, rounding=rounding, input_scale=layer.inputs.scale)
    # A layer with adapters is used for requests without one; the others run plain, over the same pages.
    _demand(type(layer) in (nn.Linear, SwitchedLinear), f"it has a {type(layer).__name__}")
    _demand(layer.weight.dtype in (paddle.float32, paddle.bfloat16), f"its weights are {layer.weight.dtype}")
    return float_matrix(layer.weight.detach(), layer.bias)


def _head(model: Any) -> Matrix:
    if model.config.tie_embeddings:
        return float_matrix(model.embed_tokens.weight.detach(), transposed=True)
    return _matrix(model.lm_head)


def _agrees(model: CausalLM, plan: DecoderPlan) -> bool:
    """Run a few tokens through the first block, plainly and by the step."""
    places = range(PROBE)
    ids = [place * 7 % model.config.vocab_size for place in places]
    with inference(model):
        positions_1S = paddle.arange(PROBE).unsqueeze(0)
        context = model.context(positions_1S, AttentionMask())
        expected = model.blocks[0](model.embed(paddle.to_tensor([ids]), positions_1S), context)[0].astype("float32")
        one_block = replace(plan, layers=plan.layers[:1], norm=None, head=None)
        shape = [PROBE, plan.num_kv_heads, plan.head_dim]
        keys, values = paddle.zeros(shape), paddle.zeros(shape)
        step = DecoderStep(one_block, Pages((keys,), (values,), PROBE))
        rows = StepRows([0, PROBE], [PROBE], [[0]], places)
        tables = PositionTables(model).rows(places, rows.starts)
        found = step.run(EmbeddingRows(model).rows(ids, places), rows, *tables)
    difference = float(np.abs(np.stack(found) - expected.numpy()).max())
    is_rough = plan.layers[0].down.activations[0] == Rounding.EIGHT_BITS
    return difference <= (ROUGH_TOLERANCE if is_rough else TOLERANCE) * max(1.0, float(expected.abs().max()))


def _demand(holds: bool, reason: str) -> None:
    if not holds:
        raise NotCoveredError(reason)
