"""How an OPT splits over tensor-parallel ranks and pipeline stages, and which layers may be quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Piece, QuantGroup, ShardingRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .config import OptConfig

ATTENTION, FFN = "blocks.*.attention.", "blocks.*.feed_forward."


@hookimpl
def llm_run_sharding_map(config: OptConfig) -> tuple[ShardingRule, ...]:
    """Return one rule for each parameter: heads and feed-forward units are split, the rest is small."""
    columns = [f"{ATTENTION}q_proj", f"{ATTENTION}k_proj", f"{ATTENTION}v_proj", f"{FFN}up_proj"]
    rows = [f"{ATTENTION}o_proj", f"{FFN}down_proj"]
    norms = ["blocks.*.attention_norm", "blocks.*.ffn_norm", *(["norm"] if config.is_pre_norm else [])]
    whole = ["embed_positions", *(["project_in"] if config.has_projections else [])]
    return (
        ShardingRule("embed_tokens.weight", "vocab"),
        *(ShardingRule(f"{name}.weight", "replicate") for name in whole),
        *((ShardingRule("project_out.weight", "replicate", partial=True),) if config.has_projections else ()),
        *(ShardingRule(f"{name}.{part}", "column") for name in columns for part in ("weight", "bias")),
        *(ShardingRule(f"{name}.weight", "row") for name in rows),
        *(ShardingRule(f"{name}.bias", "replicate") for name in rows),
        *(ShardingRule(f"{name}.{part}", "replicate") for name in norms for part in ("weight", "bias")),
        *(() if config.tie_embeddings else (ShardingRule("lm_head.weight", "column"),)),
    )


@hookimpl
def llm_run_pipeline_split(config: OptConfig) -> tuple[Piece, ...]:
    """Return the pieces in forward order; a tied head needs the embedding."""
    tied, projected = config.tie_embeddings, config.has_projections
    head = (("project_out.",) if projected else ()) + (() if tied else ("lm_head.",))
    return (
        Piece("embed", ("embed_tokens.", "embed_positions.", *(("project_in.",) if projected else ()))),
        *(Piece(f"blocks.{index}", (f"blocks.{index}.",)) for index in range(config.num_layers)),
        Piece("finish", ("norm.",) if config.is_pre_norm else ()),
        Piece("head", head, shares="embed_tokens." if tied else ""),
    )


@hookimpl
def llm_run_quantizable_layers(config: OptConfig) -> tuple[QuantGroup, ...]:
    """Return the linear layers by the input that they share.

    A norm behind a sum feeds the residual stream as well, so that no scale can be folded into it.
    """
    norms = ("blocks.*.attention_norm", "blocks.*.ffn_norm") if config.is_pre_norm else ("", "")
    return (
        *((QuantGroup(("project_in",)),) if config.has_projections else ()),
        QuantGroup((f"{ATTENTION}q_proj", f"{ATTENTION}k_proj", f"{ATTENTION}v_proj"), norm=norms[0]),
        QuantGroup((f"{ATTENTION}o_proj",), feeder=f"{ATTENTION}v_proj"),
        QuantGroup((f"{FFN}up_proj",), norm=norms[1]),
        QuantGroup((f"{FFN}down_proj",), feeder=f"{FFN}up_proj"),
        *(() if config.tie_embeddings else (QuantGroup(("lm_head",)),)),
    )
