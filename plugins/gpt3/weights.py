"""What a GPT's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import GptConfig

# Ours: (Hugging Face, PaddleNLP, GGUF)
TOP = ("transformer.", "gpt.", "")
BLOCK = ("transformer.h.{i}.", "gpt.decoder.layers.{i}.", "blk.{i}.")
EMBEDDING = ("wte.weight", "embeddings.word_embeddings.weight", "token_embd.weight")
POSITIONS = ("wpe.weight", "embeddings.position_embeddings.weight", "position_embd.weight")
FINAL_NORM = ("ln_f", "decoder.norm", "output_norm")
HEAD = ("lm_head.weight", "lm_head.weight", "output.weight")
FUSED_QKV = ("attn.c_attn", "self_attn.qkv_proj", "attn_qkv")
PARTS = {
    "attention_norm": ("ln_1", "norm1", "attn_norm"),
    "attention.o_proj": ("attn.c_proj", "self_attn.out_proj", "attn_output"),
    "ffn_norm": ("ln_2", "norm2", "ffn_norm"),
    "feed_forward.up_proj": ("mlp.c_fc", "linear1", "ffn_up"),
    "feed_forward.down_proj": ("mlp.c_proj", "linear2", "ffn_down"),
}


@hookimpl
def llm_run_weight_map(config: GptConfig, layout: Layout) -> WeightMap:
    """Return the map between our names and those of ``layout``.

    Hugging Face holds the matrices as OpenAI's ``Conv1D`` does, [in, out] like ours; llama.cpp transposes them.
    """
    column = {"hf": 0, "paddlenlp": 1, "gguf": 2}[layout]
    embedding, head = TOP[column] + EMBEDDING[column], HEAD[column]
    rules = [
        WeightRule(("embed_tokens.weight",), (embedding,)),
        WeightRule(("embed_positions.weight",), (TOP[column] + POSITIONS[column],)),
        *_block_rules(config, column),
        *(WeightRule((f"norm.{part}",), (f"{TOP[column]}{FINAL_NORM[column]}.{part}",)) for part in ("weight", "bias")),
    ]
    if not config.tie_embeddings:
        rules.append(WeightRule(("lm_head.weight",), (head,), transpose=True))
    return WeightMap(
        rules=tuple(rules),
        ignore=(r".*h\.\d+\.attn\.(masked_)?bias",) if layout == "hf" else (),  # causal masks
        tied={head: embedding} if config.tie_embeddings else {},
        optional_prefix=TOP[column],
    )


def _block_rules(config: GptConfig, column: int) -> Iterator[WeightRule]:
    ours, theirs = "blocks.{i}.", BLOCK[column]
    is_paddlenlp, is_gguf = column == 1, column == 2
    for part in ("weight", "bias"):
        transpose = is_gguf and part == "weight"
        qkv = tuple(f"{ours}attention.{name}_proj.{part}" for name in "qkv")
        if is_paddlenlp and not config.has_fused_qkv:
            for name, split in zip(qkv, "qkv", strict=True):
                yield WeightRule((name,), (f"{theirs}self_attn.{split}_proj.{part}",))
        else:
            heads = (config.num_heads, 3) if is_paddlenlp else ()
            yield WeightRule(qkv, (f"{theirs}{FUSED_QKV[column]}.{part}",), transpose=transpose, interleave=heads)
        for name, foreign in PARTS.items():
            yield WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign[column]}.{part}",), transpose=transpose)
