"""How a llama splits over tensor-parallel ranks and pipeline stages, and which layers may be quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llm_run.core.registry.facts import Piece, QuantGroup, ShardingRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import LlamaConfig

COLUMNS = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "feed_forward.gate_proj", "feed_forward.up_proj")
ROWS = ("attention.o_proj", "feed_forward.down_proj")
KV = ("attention.k_proj", "attention.v_proj")


@hookimpl
def llm_run_sharding_map(config: LlamaConfig) -> tuple[ShardingRule, ...]:
    """Split heads and feed-forward units; norms are whole on every rank."""
    whole = ["norm", "blocks.*.attention_norm", "blocks.*.ffn_norm"]
    rules = [ShardingRule("embed_tokens.weight", "vocab")]
    rules += [ShardingRule(f"{name}.weight", "replicate") for name in whole]
    for linear in COLUMNS:
        parts = ("weight", "bias") if config.has_bias(linear) else ("weight",)
        layout: Literal["kv_groups", "plain"] = "kv_groups" if linear in KV else "plain"
        rules += [ShardingRule(f"blocks.*.{linear}.{part}", "column", layout) for part in parts]
    for linear in ROWS:
        rules.append(ShardingRule(f"blocks.*.{linear}.weight", "row"))
        if config.has_bias(linear):
            rules.append(ShardingRule(f"blocks.*.{linear}.bias", "replicate"))
    if not config.tie_embeddings:
        rules.append(ShardingRule("lm_head.weight", "column"))
    return tuple(rules)


@hookimpl
def llm_run_pipeline_split(config: LlamaConfig) -> tuple[Piece, ...]:
    """Cut between blocks; a tied head needs the embedding."""
    tied = config.tie_embeddings
    return (
        Piece("embed", ("embed_tokens.",)),
        *(Piece(f"blocks.{index}", (f"blocks.{index}.",)) for index in range(config.num_layers)),
        Piece("finish", ("norm.",)),
        Piece("head", () if tied else ("lm_head.",), shares="embed_tokens." if tied else ""),
    )


@hookimpl
def llm_run_quantizable_layers(config: LlamaConfig) -> tuple[QuantGroup, ...]:
    """Group the linear layers by the input that they share."""
    attention, ffn = "blocks.*.attention.", "blocks.*.feed_forward."
    return (
        QuantGroup((f"{attention}q_proj", f"{attention}k_proj", f"{attention}v_proj"), norm="blocks.*.attention_norm"),
        QuantGroup((f"{attention}o_proj",), feeder=f"{attention}v_proj"),
        QuantGroup((f"{ffn}gate_proj", f"{ffn}up_proj"), norm="blocks.*.ffn_norm"),
        QuantGroup((f"{ffn}down_proj",), feeder=f"{ffn}up_proj"),
        *(() if config.tie_embeddings else (QuantGroup(("lm_head",)),)),
    )
