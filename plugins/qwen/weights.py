"""What a qwen's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import QwenConfig

QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
# Ours: (generation 1, generations 2 and 3, GGUF). Of the first generation's branches, w2 is the gate.
LINEARS = {
    "attention.o_proj": ("attn.c_proj", "self_attn.o_proj", "attn_output"),
    "feed_forward.gate_proj": ("mlp.w2", "mlp.gate_proj", "ffn_gate"),
    "feed_forward.up_proj": ("mlp.w1", "mlp.up_proj", "ffn_up"),
    "feed_forward.down_proj": ("mlp.c_proj", "mlp.down_proj", "ffn_down"),
}
SPLIT_QKV = {
    "attention.q_proj": ("", "self_attn.q_proj", "attn_q"),
    "attention.k_proj": ("", "self_attn.k_proj", "attn_k"),
    "attention.v_proj": ("", "self_attn.v_proj", "attn_v"),
}
FUSED_QKV = ("attn.c_attn", "", "attn_qkv")
NORMS = {
    "attention_norm": ("ln_1", "input_layernorm", "attn_norm"),
    "ffn_norm": ("ln_2", "post_attention_layernorm", "ffn_norm"),
}
HEAD_NORMS = {
    "attention.q_norm": ("", "self_attn.q_norm", "attn_q_norm"),
    "attention.k_norm": ("", "self_attn.k_norm", "attn_k_norm"),
}
EMBEDDING, FINAL_NORM = ("wte", "embed_tokens", "token_embd"), ("ln_f", "norm", "output_norm")


@hookimpl
def llm_run_weight_map(config: QwenConfig, layout: Layout) -> WeightMap | None:
    """Return the map between our names and those of ``layout``; PaddleNLP has no generation 3."""
    if layout == "paddlenlp" and config.generation == 3:
        return None
    first = config.generation == 1
    column = 2 if layout == "gguf" else 0 if first else 1
    model = {"hf": "transformer" if first else "model", "paddlenlp": "qwen" if first else "qwen2", "gguf": ""}[layout]
    top = f"{model}." if model else ""
    block = "blk.{i}." if layout == "gguf" else f"{top}h.{{i}}." if first else f"{top}layers.{{i}}."
    embedding, head = f"{top}{EMBEDDING[column]}.weight", "output.weight" if layout == "gguf" else "lm_head.weight"
    rules = [
        WeightRule(("embed_tokens.weight",), (embedding,)),
        *_block_rules(config, block, column, transpose=layout != "paddlenlp"),
        WeightRule(("norm.weight",), (f"{top}{FINAL_NORM[column]}.weight",)),
    ]
    if not config.tie_embeddings:
        rules.append(WeightRule(("lm_head.weight",), (head,), transpose=layout != "paddlenlp"))
    return WeightMap(
        rules=tuple(rules),
        ignore=(r".*\.rotary_emb\.inv_freq",) if layout != "gguf" else (),
        tied={head: embedding} if config.tie_embeddings else {},
    )


def _block_rules(config: QwenConfig, block: str, column: int, *, transpose: bool) -> Iterator[WeightRule]:
    ours = "blocks.{i}."
    for name, foreign in {**NORMS, **(HEAD_NORMS if config.qk_norm else {})}.items():
        yield WeightRule((f"{ours}{name}.weight",), (f"{block}{foreign[column]}.weight",))
    if config.generation == 1:
        fused = f"{block}{FUSED_QKV[column]}"
        yield WeightRule(tuple(f"{ours}{name}.weight" for name in QKV), (f"{fused}.weight",), transpose=transpose)
        yield WeightRule(tuple(f"{ours}{name}.bias" for name in QKV), (f"{fused}.bias",))
    for name, foreign in {**LINEARS, **({} if config.generation == 1 else SPLIT_QKV)}.items():
        yield WeightRule((f"{ours}{name}.weight",), (f"{block}{foreign[column]}.weight",), transpose=transpose)
        if config.has_bias(name):
            yield WeightRule((f"{ours}{name}.bias",), (f"{block}{foreign[column]}.bias",))
