"""What a baichuan's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import BaichuanConfig

# Ours: (Hugging Face and PaddleNLP, GGUF). PaddleNLP knows the model as a llama.
QKV = {
    "attention.q_proj": ("self_attn.q_proj", "attn_q"),
    "attention.k_proj": ("self_attn.k_proj", "attn_k"),
    "attention.v_proj": ("self_attn.v_proj", "attn_v"),
}
LINEARS = {
    "attention.o_proj": ("self_attn.o_proj", "attn_output"),
    "feed_forward.gate_proj": ("mlp.gate_proj", "ffn_gate"),
    "feed_forward.up_proj": ("mlp.up_proj", "ffn_up"),
    "feed_forward.down_proj": ("mlp.down_proj", "ffn_down"),
}
NORMS = {"attention_norm": ("input_layernorm", "attn_norm"), "ffn_norm": ("post_attention_layernorm", "ffn_norm")}
TOPS = {
    # embedding, final norm, head, block
    "hf": ("model.embed_tokens", "model.norm", "lm_head", "model.layers.{i}."),
    "paddlenlp": ("llama.embed_tokens", "llama.norm", "lm_head", "llama.layers.{i}."),
    "gguf": ("token_embd", "output_norm", "output", "blk.{i}."),
}


@hookimpl
def llm_run_weight_map(config: BaichuanConfig, layout: Layout) -> WeightMap:
    """Return the map between our names and those of ``layout``."""
    embedding, norm, head, block = TOPS[layout]
    return WeightMap(
        rules=(
            WeightRule(("embed_tokens.weight",), (f"{embedding}.weight",)),
            *_block_rules(config, layout, block),
            WeightRule(("norm.weight",), (f"{norm}.weight",)),
            WeightRule(("lm_head.weight",), (f"{head}.weight",), transpose=layout != "paddlenlp"),
        ),
        ignore=() if layout == "gguf" else (r".*\.rotary_emb\.inv_freq",),
    )


def _block_rules(config: BaichuanConfig, layout: Layout, block: str) -> Iterator[WeightRule]:
    ours, column, transpose = "blocks.{i}.", int(layout == "gguf"), layout != "paddlenlp"
    for name, foreign in NORMS.items():
        yield WeightRule((f"{ours}{name}.weight",), (f"{block}{foreign[column]}.weight",))
    if layout == "hf":
        fused = (f"{block}self_attn.W_pack.weight",)
        yield WeightRule(tuple(f"{ours}{name}.weight" for name in QKV), fused, transpose=True)
    for name, foreign in {**({} if layout == "hf" else QKV), **LINEARS}.items():
        # llama.cpp stores the rows of q and k as (D/2, 2) where Hugging Face has (2, D/2), with ALiBi as well.
        permute = (config.num_heads,) if layout == "gguf" and foreign[1] in ("attn_q", "attn_k") else ()
        yield WeightRule(
            (f"{ours}{name}.weight",), (f"{block}{foreign[column]}.weight",),
            transpose=transpose, permute_rotary=permute,
        )  # fmt: skip
