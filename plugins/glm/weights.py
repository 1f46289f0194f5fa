"""What a GLM's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap
from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.weight_rules import BOTH, fused, renamed

if TYPE_CHECKING:
    from llm_run.core.registry.facts import Layout

    from .config import GlmConfig

TOP = "glm."
QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
LINEARS = {
    "attention.o_proj": "attention.dense",
    "feed_forward.up_proj": "mlp.dense_h_to_4h",
    "feed_forward.down_proj": "mlp.dense_4h_to_h",
}
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
EMBEDDINGS = {
    "embed_tokens": "word_embeddings",
    "embed_positions": "transformer.position_embeddings",
    "embed_block_positions": "transformer.block_position_embeddings",
}


@hookimpl
def llm_run_weight_map(config: GlmConfig, layout: Layout) -> WeightMap | None:
    """Return the map between our names and those of ``layout``; llama.cpp has no GLM of this kind.

    PaddleNLP's names are Hugging Face's, with matrices transposed. The published files lack ``glm.``. Its
    tensor-parallel ranks hold queries, keys and values head by head, unlike the file of the whole model.
    """
    if layout == "gguf":
        return None
    ours, theirs = "blocks.{i}.", f"{TOP}transformer.layers.{{i}}."
    transpose, qkv, heads = layout == "hf", [f"{ours}{name}" for name in QKV], (config.num_heads, 3)
    return WeightMap(
        rules=(
            *renamed(EMBEDDINGS, theirs=TOP),
            *fused(qkv, f"{theirs}attention.query_key_value", parts=BOTH, transpose=transpose, rank_interleave=heads),
            *renamed(LINEARS, ours=ours, theirs=theirs, parts=BOTH, transpose=transpose),
            *renamed(NORMS, ours=ours, theirs=theirs, parts=BOTH),
            *renamed({"norm": "transformer.final_layernorm"}, theirs=TOP, parts=BOTH),
        ),
        optional_prefix=TOP,
    )
