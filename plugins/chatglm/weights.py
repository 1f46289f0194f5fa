"""What a ChatGLM's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from llm_run.core.registry.facts import Layout

    from .config import ChatGlmConfig

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
    embedding = f"{top}word_embeddings.weight"
    rules = [WeightRule(("embed_tokens.weight",), (embedding,))]
    for part in ("weight", "bias"):
        transpose = is_hf and part == "weight"
        rules.append(
            WeightRule(
                tuple(f"{ours}attention.{name}_proj.{part}" for name in "qkv"),
                (f"{theirs}attention.query_key_value.{part}",),
                transpose=transpose, interleave=(config.num_heads, 3),
            )
        )  # fmt: skip
        rules += [
            WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign}.{part}",), transpose=transpose)
            for name, foreign in LINEARS.items()
        ]
        rules += [
            WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign}.{part}",)) for name, foreign in NORMS.items()
        ]
        rules.append(WeightRule((f"norm.{part}",), (f"{top}final_layernorm.{part}",)))
    return WeightMap(
        rules=tuple(rules),
        ignore=(r".*rotary_emb(eddings)?\.inv_freq",),
        tied={"lm_head.weight" if is_hf else "lm_head.decoder_weight": embedding},
    )
