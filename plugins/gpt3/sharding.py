"""How a GPT splits over tensor-parallel ranks and pipeline stages, and which layers may be quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Piece, QuantGroup, ShardingRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import GptConfig

ATTENTION, FFN = "blocks.*.attention.", "blocks.*.feed_forward."


@hookimpl
def llm_run_sharding_map(config: GptConfig) -> tuple[ShardingRule, ...]:
    """Return one rule for each parameter: heads and feed-forward units are split, norms and positions are not."""
    columns = [f"{ATTENTION}q_proj", f"{ATTENTION}k_proj", f"{ATTENTION}v_proj", f"{FFN}up_proj"]
    rows = [f"{ATTENTION}o_proj", f"{FFN}down_proj"]
    norms = ["blocks.*.attention_norm", "blocks.*.ffn_norm", "norm"]
    return (
        ShardingRule("embed_tokens.weight", "vocab"),
        ShardingRule("embed_positions.weight", "replicate"),
        *(ShardingRule(f"{name}.{part}", "column") for name in columns for part in ("weight", "bias")),
        *(ShardingRule(f"{name}.weight", "row") for name in rows),
        *(ShardingRule(f"{name}.bias", "replicate") for name in rows),
        *(ShardingRule(f"{name}.{part}", "replicate") for name in norms for part in ("weight", "bias")),
        *(() if config.tie_embeddings else (ShardingRule("lm_head.weight", "column"),)),
    )


@hookimpl
def llm_run_pipeline_split(config: GptConfig) -> tuple[Piece, ...]:
    """Return the pieces in forward order; a tied head needs the embedding."""
    tied = config.tie_embeddings
    return (
        Piece("embed", ("embed_tokens.", "embed_positions.")),
        *(Piece(f"blocks.{index}", (f"blocks.{index}.",)) for index in range(config.num_layers)),
        Piece("finish", ("norm.",)),
        Piece("head", () if tied else ("lm_head.",), shares="embed_tokens." if tied else ""),
    )


@hookimpl
def llm_run_quantizable_layers(config: GptConfig) -> tuple[QuantGroup, ...]:
    """Return the linear layers by the input that they share."""
    return (
        QuantGroup((f"{ATTENTION}q_proj", f"{ATTENTION}k_proj", f"{ATTENTION}v_proj"), norm="blocks.*.attention_norm"),
        QuantGroup((f"{ATTENTION}o_proj",), feeder=f"{ATTENTION}v_proj"),
        QuantGroup((f"{FFN}up_proj",), norm="blocks.*.ffn_norm"),
        QuantGroup((f"{FFN}down_proj",)),
        *(() if config.tie_embeddings else (QuantGroup(("lm_head",)),)),
    )
