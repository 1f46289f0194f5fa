"""How a ChatGLM2 splits over tensor-parallel ranks and pipeline stages, and which layers may be quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Piece, QuantGroup, ShardingRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import ChatGlm2Config

ATTENTION, FFN = "blocks.*.attention.", "blocks.*.feed_forward."


@hookimpl
def llm_run_sharding_map(config: ChatGlm2Config) -> tuple[ShardingRule, ...]:
    """Split heads, feed-forward units and tokens; the two groups of keys and values as far as they go."""
    parts = ("weight", "bias") if config.qkv_bias else ("weight",)
    norms = ("norm", "blocks.*.attention_norm", "blocks.*.ffn_norm")
    return (
        ShardingRule("embed_tokens.weight", "vocab"),
        *(ShardingRule(f"{ATTENTION}q_proj.{part}", "column") for part in parts),
        *(ShardingRule(f"{ATTENTION}{name}_proj.{part}", "column", "kv_groups") for name in "kv" for part in parts),
        *(ShardingRule(f"{name}.weight", "column") for name in (f"{FFN}gate_proj", f"{FFN}up_proj", "lm_head")),
        *(ShardingRule(f"{name}.weight", "row") for name in (f"{ATTENTION}o_proj", f"{FFN}down_proj")),
        *(ShardingRule(f"{name}.weight", "replicate") for name in norms),
    )


@hookimpl
def llm_run_pipeline_split(config: ChatGlm2Config) -> tuple[Piece, ...]:
    """Cut between blocks."""
    return (
        Piece("embed", ("embed_tokens.",)),
        *(Piece(f"blocks.{index}", (f"blocks.{index}.",)) for index in range(config.num_layers)),
        Piece("finish", ("norm.",)),
        Piece("head", ("lm_head.",)),
    )


@hookimpl
def llm_run_quantizable_layers() -> tuple[QuantGroup, ...]:
    """Group the linear layers by the input that they share."""
    return (
        QuantGroup(tuple(f"{ATTENTION}{name}_proj" for name in "qkv"), norm="blocks.*.attention_norm"),
        QuantGroup((f"{ATTENTION}o_proj",), feeder=f"{ATTENTION}v_proj"),
        QuantGroup((f"{FFN}gate_proj", f"{FFN}up_proj"), norm="blocks.*.ffn_norm"),
        QuantGroup((f"{FFN}down_proj",), feeder=f"{FFN}up_proj"),
        QuantGroup(("lm_head",)),
    )
