"""What a llama's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import LlamaConfig

LINEARS = {
    # ours: (Hugging Face and PaddleNLP, GGUF)
    "attention.q_proj": ("self_attn.q_proj", "attn_q"),
    "attention.k_proj": ("self_attn.k_proj", "attn_k"),
    "attention.v_proj": ("self_attn.v_proj", "attn_v"),
    "attention.o_proj": ("self_attn.o_proj", "attn_output"),
    "feed_forward.gate_proj": ("mlp.gate_proj", "ffn_gate"),
    "feed_forward.up_proj": ("mlp.up_proj", "ffn_up"),
    "feed_forward.down_proj": ("mlp.down_proj", "ffn_down"),
}
NORMS = {
    "attention_norm": ("input_layernorm", "attn_norm"),
    "ffn_norm": ("post_attention_layernorm", "ffn_norm"),
}


@hookimpl
def llm_run_weight_map(config: LlamaConfig, layout: Layout) -> WeightMap:
    """Return the map between our names and those of ``layout``."""
    top, block = {
        "hf": ("model.", "model.layers.{i}."),
        "paddlenlp": ("llama.", "llama.layers.{i}."),
        "gguf": ("", "blk.{i}."),
    }[layout]
    gguf = layout == "gguf"
    embedding = "token_embd.weight" if gguf else f"{top}embed_tokens.weight"
    head = "output.weight" if gguf else "lm_head.weight"
    rules = [
        WeightRule(("embed_tokens.weight",), (embedding,)),
        *_block_rules(config, block, gguf),
        WeightRule(("norm.weight",), ("output_norm.weight" if gguf else f"{top}norm.weight",)),
    ]
    if not config.tie_embeddings:
        rules.append(WeightRule(("lm_head.weight",), (head,), transpose=layout != "paddlenlp"))
    return WeightMap(
        rules=tuple(rules),
        ignore=_ignored(config, layout),
        tied={head: embedding} if config.tie_embeddings else {},
    )


def _block_rules(config: LlamaConfig, block: str, gguf: bool) -> Iterator[WeightRule]:
    for ours, theirs in NORMS.items():
        yield WeightRule((f"blocks.{{i}}.{ours}.weight",), (f"{block}{theirs[gguf]}.weight",))
    for ours, theirs in LINEARS.items():
        # llama.cpp stores the rows of q and k as (D/2, 2) where Hugging Face has (2, D/2).
        heads = {"attention.q_proj": (config.num_heads,), "attention.k_proj": (config.num_kv_heads,)} if gguf else {}
        name, foreign = f"blocks.{{i}}.{ours}", f"{block}{theirs[gguf]}"
        permute = heads.get(ours, ())
        yield WeightRule(
            (f"{name}.weight",), (f"{foreign}.weight",),
            transpose=not block.startswith("llama."), permute_rotary=permute,
        )  # fmt: skip
        if config.has_bias(ours):
            yield WeightRule((f"{name}.bias",), (f"{foreign}.bias",), permute_rotary=permute)


def _ignored(config: LlamaConfig, layout: Layout) -> tuple[str, ...]:
    if layout != "gguf":
        return (r".*\.rotary_emb\.inv_freq",)
    # The factors of a stretched llama 3. Where the header did not say so, the key must not pass unnoticed.
    stretched = config.rotary.scaling is not None and config.rotary.scaling.kind == "llama3"
    return (r"rope_freqs\.weight",) if stretched else ()
