"""What a GLM's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from llm_run.core.registry.facts import Layout

TOP = "glm."
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
def llm_run_weight_map(layout: Layout) -> WeightMap | None:
    """Return the map between our names and those of ``layout``; llama.cpp has no GLM of this kind.

    PaddleNLP's names are Hugging Face's, with matrices transposed. The published files lack ``glm.``.
    """
    if layout == "gguf":
        return None
    ours, theirs = "blocks.{i}.", f"{TOP}transformer.layers.{{i}}."
    rules = [WeightRule((f"{name}.weight",), (f"{TOP}{foreign}.weight",)) for name, foreign in EMBEDDINGS.items()]
    for part in ("weight", "bias"):
        transpose = layout == "hf" and part == "weight"
        rules.append(
            WeightRule(
                tuple(f"{ours}attention.{name}_proj.{part}" for name in "qkv"),
                (f"{theirs}attention.query_key_value.{part}",),
                transpose=transpose,
            )
        )
        rules += [
            WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign}.{part}",), transpose=transpose)
            for name, foreign in LINEARS.items()
        ]
        rules += [
            WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign}.{part}",)) for name, foreign in NORMS.items()
        ]
        rules.append(WeightRule((f"norm.{part}",), (f"{TOP}transformer.final_layernorm.{part}",)))
    return WeightMap(rules=tuple(rules), optional_prefix=TOP)
