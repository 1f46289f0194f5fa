"""What a ChatGLM2's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import ChatGlm2Config

# Ours: (Hugging Face and PaddleNLP, GGUF). Of the fused feed-forward matrix, the gate comes first.
QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
FUSED_QKV = ("self_attention.query_key_value", "attn_qkv")
LINEARS = {
    ("attention.o_proj",): ("self_attention.dense", "attn_output"),
    ("feed_forward.gate_proj", "feed_forward.up_proj"): ("mlp.dense_h_to_4h", "ffn_up"),
    ("feed_forward.down_proj",): ("mlp.dense_4h_to_h", "ffn_down"),
}
NORMS = {"attention_norm": ("input_layernorm", "attn_norm"), "ffn_norm": ("post_attention_layernorm", "ffn_norm")}
TOPS = (
    ("embedding.word_embeddings", "encoder.final_layernorm", "output_layer", "encoder.layers.{i}"),
    ("token_embd", "output_norm", "output", "blk.{i}"),
)
PREFIXES = {"hf": "transformer.", "paddlenlp": "chatglm_v2.", "gguf": ""}


@hookimpl
def llm_run_weight_map(config: ChatGlm2Config, layout: Layout) -> WeightMap:
    """Return the map between our names and those of ``layout``."""
    column, transpose = int(layout == "gguf"), layout != "paddlenlp"
    embedding, norm, head, block = (f"{PREFIXES[layout]}{name}" for name in TOPS[column])
    return WeightMap(
        rules=(
            WeightRule(("embed_tokens.weight",), (f"{embedding}.weight",)),
            *_block_rules(config, f"{block}.", column, transpose),
            WeightRule(("norm.weight",), (f"{norm}.weight",)),
            WeightRule(("lm_head.weight",), (f"{head}.weight",), transpose=transpose),
        ),
        ignore=() if layout == "gguf" else (r".*rotary_pos_emb\.inv_freq",),
    )


def _block_rules(config: ChatGlm2Config, block: str, column: int, transpose: bool) -> Iterator[WeightRule]:
    ours = "blocks.{i}."
    for name, foreign in NORMS.items():
        yield WeightRule((f"{ours}{name}.weight",), (f"{block}{foreign[column]}.weight",))
    groups = config.num_kv_heads * config.head_dim
    for part in ("weight", "bias") if config.qkv_bias else ("weight",):
        yield WeightRule(
            tuple(f"{ours}{name}.{part}" for name in QKV), (f"{block}{FUSED_QKV[column]}.{part}",),
            transpose=transpose, sizes=(config.num_heads * config.head_dim, groups, groups),
        )  # fmt: skip
    for names, foreign in LINEARS.items():
        yield WeightRule(
            tuple(f"{ours}{name}.weight" for name in names), (f"{block}{foreign[column]}.weight",), transpose=transpose
        )
