"""How a baichuan splits over tensor-parallel ranks and pipeline stages, and which layers may be quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Piece, QuantGroup, ShardingRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import BaichuanConfig

ATTENTION, FFN = "blocks.*.attention.", "blocks.*.feed_forward."


@hookimpl
def llm_run_sharding_map() -> tuple[ShardingRule, ...]:
    """Split heads, feed-forward units and tokens. A rank that has whole rows of the head can normalize them alone."""
    norms = ("norm", "blocks.*.attention_norm", "blocks.*.ffn_norm")
    columns = (*(f"{ATTENTION}{name}_proj" for name in "qkv"), f"{FFN}gate_proj", f"{FFN}up_proj", "lm_head")
    return (
        ShardingRule("embed_tokens.weight", "vocab"),
        *(ShardingRule(f"{name}.weight", "column") for name in columns),
        *(ShardingRule(f"{name}.weight", "row") for name in (f"{ATTENTION}o_proj", f"{FFN}down_proj")),
        *(ShardingRule(f"{name}.weight", "replicate") for name in norms),
    )


@hookimpl
def llm_run_pipeline_split(config: BaichuanConfig) -> tuple[Piece, ...]:
    """Cut between blocks."""
    return (
        Piece("embed", ("embed_tokens.",)),
        *(Piece(f"blocks.{index}", (f"blocks.{index}.",)) for index in range(config.num_layers)),
        Piece("finish", ("norm.",)),
        Piece("head", ("lm_head.",)),
    )


@hookimpl
def llm_run_quantizable_layers(config: BaichuanConfig) -> tuple[QuantGroup, ...]:
    """Group the linear layers by the input that they share. A head whose rows are normalised is no linear layer."""
    return (
        QuantGroup(tuple(f"{ATTENTION}{name}_proj" for name in "qkv"), norm="blocks.*.attention_norm"),
        QuantGroup((f"{ATTENTION}o_proj",), feeder=f"{ATTENTION}v_proj"),
        QuantGroup((f"{FFN}gate_proj", f"{FFN}up_proj"), norm="blocks.*.ffn_norm"),
        QuantGroup((f"{FFN}down_proj",), feeder=f"{FFN}up_proj"),
        *(() if config.norm_head else (QuantGroup(("lm_head",)),)),
    )
