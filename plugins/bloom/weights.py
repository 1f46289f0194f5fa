"""What a BLOOM's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import BloomConfig

# Ours: (Hugging Face and PaddleNLP, GGUF)
OUTER = {"embed_norm": ("word_embeddings_layernorm", "token_embd_norm"), "norm": ("ln_f", "output_norm")}
QKV = ("self_attention.query_key_value", "attn_qkv")
PARTS = {
    "attention_norm": ("input_layernorm", "attn_norm"),
    "attention.o_proj": ("self_attention.dense", "attn_output"),
    "ffn_norm": ("post_attention_layernorm", "ffn_norm"),
    "feed_forward.up_proj": ("mlp.dense_h_to_4h", "ffn_up"),
    "feed_forward.down_proj": ("mlp.dense_4h_to_h", "ffn_down"),
}


@hookimpl
def llm_run_weight_map(config: BloomConfig, layout: Layout) -> WeightMap:
    """Return the map between our names and those of ``layout``. The published files lack ``transformer.``."""
    top, embedding, head = {
        "hf": ("transformer.", "transformer.word_embeddings.weight", "lm_head.weight"),
        "paddlenlp": ("bloom.", "bloom.word_embeddings.weight", "lm_head.decoder_weight"),
        "gguf": ("", "token_embd.weight", "output.weight"),
    }[layout]
    is_gguf = layout == "gguf"
    rules = [
        WeightRule(("embed_tokens.weight",), (embedding,)),
        *(
            WeightRule((f"{ours}.{part}",), (f"{top}{theirs[is_gguf]}.{part}",))
            for ours, theirs in OUTER.items()
            for part in ("weight", "bias")
        ),
        *_block_rules(config, "blk.{i}." if is_gguf else f"{top}h.{{i}}.", layout),
    ]
    if not config.tie_embeddings:
        rules.append(WeightRule(("lm_head.weight",), (head,), transpose=True))
    return WeightMap(rules=tuple(rules), tied={head: embedding} if config.tie_embeddings else {}, optional_prefix=top)


def _block_rules(config: BloomConfig, theirs: str, layout: Layout) -> Iterator[WeightRule]:
    """Yield the rules of a block. llama.cpp re-orders q, k and v of each head to all q, all k, all v."""
    ours, is_gguf = "blocks.{i}.", layout == "gguf"
    heads = () if is_gguf else (config.num_heads, 3)
    for part in ("weight", "bias"):
        transpose = layout != "paddlenlp" and part == "weight"
        qkv = tuple(f"{ours}attention.{name}_proj.{part}" for name in "qkv")
        yield WeightRule(qkv, (f"{theirs}{QKV[is_gguf]}.{part}",), transpose=transpose, interleave=heads)
        for name, foreign in PARTS.items():
            yield WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign[is_gguf]}.{part}",), transpose=transpose)
