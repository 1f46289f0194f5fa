"""What a qwen's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.weight_rules import BOTH, WEIGHT, column_of, fused, renamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import QwenConfig

MODELS = {"hf": ("transformer.", "model."), "paddlenlp": ("qwen.", "qwen2."), "gguf": ("", "")}
"""What all names but the head's begin with: in generation 1, and later."""
# Ours: (generation 1, generations 2 and 3, GGUF). Of the first generation's branches, w2 is the gate.
OUTER = {"embed_tokens": ("wte", "embed_tokens", "token_embd"), "norm": ("ln_f", "norm", "output_norm")}
BLOCK = ("h.{i}.", "layers.{i}.", "blk.{i}.")
LINEARS = {
    "attention.o_proj": ("attn.c_proj", "self_attn.o_proj", "attn_output"),
    "feed_forward.gate_proj": ("mlp.w2", "mlp.gate_proj", "ffn_gate"),
    "feed_forward.up_proj": ("mlp.w1", "mlp.up_proj", "ffn_up"),
    "feed_forward.down_proj": ("mlp.c_proj", "mlp.down_proj", "ffn_down"),
}
QKV = {
    "attention.q_proj": ("", "self_attn.q_proj", "attn_q"),
    "attention.k_proj": ("", "self_attn.k_proj", "attn_k"),
    "attention.v_proj": ("", "self_attn.v_proj", "attn_v"),
}
FUSED_QKV = ("attn.c_attn", "", "attn_qkv")
NORMS = {
    "attention_norm": ("ln_1", "input_layernorm", "attn_norm"),
    "ffn_norm": ("ln_2", "post_attention_layernorm", "ffn_norm"),
}
HEAD_NORMS = {f"attention.{name}_norm": ("", f"self_attn.{name}_norm", f"attn_{name}_norm") for name in "qk"}


@hookimpl
def llm_run_weight_map(config: QwenConfig, layout: Layout) -> WeightMap | None:
    """Return the map between our names and those of ``layout``; PaddleNLP has no generation 3."""
    if layout == "paddlenlp" and config.generation == 3:
        return None
    later, is_gguf, transpose = config.generation > 1, layout == "gguf", layout != "paddlenlp"
    column, top, head = 2 if is_gguf else int(later), MODELS[layout][later], "output" if is_gguf else "lm_head"
    rules = [
        *renamed(column_of(OUTER, column), theirs=top),
        *_block_rules(config, f"{top}{BLOCK[column]}", column, transpose),
    ]
    if not config.tie_embeddings:
        rules += renamed({"lm_head": head}, transpose=transpose)
    return WeightMap(
        rules=tuple(rules),
        ignore=() if is_gguf else (r".*\.rotary_emb\.inv_freq",),
        tied={f"{head}.weight": f"{top}{OUTER['embed_tokens'][column]}.weight"} if config.tie_embeddings else {},
    )


def _block_rules(config: QwenConfig, theirs: str, column: int, transpose: bool) -> Iterator[WeightRule]:
    ours, norms = "blocks.{i}.", {**NORMS, **(HEAD_NORMS if config.qk_norm else {})}
    yield from renamed(column_of(norms, column), ours=ours, theirs=theirs)
    yield from renamed(column_of(LINEARS, column), ours=ours, theirs=theirs, transpose=transpose)
    if config.generation == 1:
        qkv = [f"{ours}{name}" for name in QKV]
        yield from fused(qkv, f"{theirs}{FUSED_QKV[column]}", parts=BOTH, transpose=transpose)
    else:
        parts = BOTH if config.has_bias("attention.q_proj") else WEIGHT
        yield from renamed(column_of(QKV, column), ours=ours, theirs=theirs, parts=parts, transpose=transpose)
