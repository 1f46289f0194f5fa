"""What a ChatGLM's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap
from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.weight_rules import BOTH, fused, renamed

if TYPE_CHECKING:
    from llm_run.core.registry.facts import Layout

    from .config import ChatGlmConfig

QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
LINEARS = {
    "attention.o_proj": "attention.dense",
    "feed_forward.up_proj": "mlp.dense_h_to_4h",
    "feed_forward.down_proj": "mlp.dense_4h_to_h",
}
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


@hookimpl
def llm_run_weight_map(config: ChatGlmConfig, layout: Layout) -> WeightMap | None:
    """Return the map between our names and those of ``layout``; llama.cpp has no ChatGLM of this generation."""
    if layout == "gguf":
        return None
    is_hf = layout == "hf"
    top = "transformer." if is_hf else "chatglm.transformer."
    ours, theirs = "blocks.{i}.", f"{top}layers.{{i}}."
    heads, qkv = (config.num_heads, 3), f"{theirs}attention.query_key_value"
    return WeightMap(
        rules=(
            *renamed({"embed_tokens": f"{top}word_embeddings"}),
            *fused([f"{ours}{name}" for name in QKV], qkv, parts=BOTH, transpose=is_hf, interleave=heads),
            *renamed(LINEARS, ours=ours, theirs=theirs, parts=BOTH, transpose=is_hf),
            *renamed(NORMS, ours=ours, theirs=theirs, parts=BOTH),
            *renamed({"norm": f"{top}final_layernorm"}, parts=BOTH),
        ),
        ignore=(r".*rotary_emb(eddings)?\.inv_freq",),
        tied={"lm_head.weight" if is_hf else "lm_head.decoder_weight": f"{top}word_embeddings.weight"},
    )
