"""Operators. Importing this package costs nothing: Paddle is imported with the first operator that is used.

Each operator is a plain Paddle composition, with a C++ variant for float32 on CPU where one is worth it;
``select`` decides between them and says why.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adamw import adamw_update as adamw_update
    from .adamw import global_norm as global_norm
    from .alibi import alibi_slopes as alibi_slopes
    from .cross_entropy import linear_cross_entropy as linear_cross_entropy
    from .cross_entropy import token_scores as token_scores
    from .feed_forward import gelu as gelu
    from .feed_forward import relu as relu
    from .feed_forward import swiglu as swiglu
    from .mask import AttentionMask as AttentionMask
    from .masked_attention import attention as attention
    from .norm import layer_norm as layer_norm
    from .norm import rms_norm as rms_norm
    from .quantized_linear import QuantizedWeight as QuantizedWeight
    from .quantized_linear import dequantize as dequantize
    from .quantized_linear import int8_linear as int8_linear
    from .quantized_linear import round_blocks as round_blocks
    from .quantized_linear import weight_only_linear as weight_only_linear
    from .rotary import apply_rotary as apply_rotary
    from .rotary import rotary_tables as rotary_tables
    from .rotary_spec import RotaryScaling as RotaryScaling
    from .rotary_spec import RotarySpec as RotarySpec
    from .select import choices as choices
    from .select import prefer as prefer
    from .token_losses import token_losses as token_losses

_HOMES = {
    "AttentionMask": "mask",
    "QuantizedWeight": "quantized_linear",
    "RotaryScaling": "rotary_spec",
    "RotarySpec": "rotary_spec",
    "adamw_update": "adamw",
    "alibi_slopes": "alibi",
    "apply_rotary": "rotary",
    "attention": "masked_attention",
    "choices": "select",
    "dequantize": "quantized_linear",
    "gelu": "feed_forward",
    "global_norm": "adamw",
    "int8_linear": "quantized_linear",
    "layer_norm": "norm",
    "linear_cross_entropy": "cross_entropy",
    "prefer": "select",
    "relu": "feed_forward",
    "rms_norm": "norm",
    "rotary_tables": "rotary",
    "round_blocks": "quantized_linear",
    "swiglu": "feed_forward",
    "token_losses": "token_losses",
    "token_scores": "cross_entropy",
    "weight_only_linear": "quantized_linear",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value
