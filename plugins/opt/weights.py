"""What an OPT's weights are called elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import WeightMap, WeightRule
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_run.core.registry.facts import Layout

    from .config import OptConfig

# Ours: (Hugging Face, PaddleNLP)
TOP = ("model.", "opt.")
OUTER = {
    "embed_tokens": ("decoder.embed_tokens", "embeddings.word_embeddings"),
    "embed_positions": ("decoder.embed_positions", "embeddings.position_embeddings"),
}
PROJECTIONS = {
    "project_in": ("decoder.project_in", "embeddings.project_in"),
    "project_out": ("decoder.project_out", "decoder.project_out"),
}
FINAL_NORM = "decoder.final_layer_norm"
HEAD = ("lm_head.weight", "lm_head.decoder_weight")
PARTS = {
    "attention.q_proj": ("self_attn.q_proj", "self_attn.q_proj"),
    "attention.k_proj": ("self_attn.k_proj", "self_attn.k_proj"),
    "attention.v_proj": ("self_attn.v_proj", "self_attn.v_proj"),
    "attention.o_proj": ("self_attn.out_proj", "self_attn.out_proj"),
    "attention_norm": ("self_attn_layer_norm", "norm1"),
    "feed_forward.up_proj": ("fc1", "linear1"),
    "feed_forward.down_proj": ("fc2", "linear2"),
    "ffn_norm": ("final_layer_norm", "norm2"),
}


@hookimpl
def llm_run_weight_map(config: OptConfig, layout: Layout) -> WeightMap | None:
    """Return the map between our names and those of ``layout``; llama.cpp has no OPT.

    PaddleNLP's head is a matrix of its own, random where the file was made from Hugging Face's. OPT's is the
    embedding, so a head that differs is refused, unless ``tie_word_embeddings`` says that it was trained apart.
    """
    if layout == "gguf":
        return None
    column, is_hf = (0, True) if layout == "hf" else (1, False)
    top, head = TOP[column], HEAD[column]
    rules = [WeightRule((f"{ours}.weight",), (f"{top}{theirs[column]}.weight",)) for ours, theirs in OUTER.items()]
    if config.has_projections:
        rules += [
            WeightRule((f"{ours}.weight",), (f"{top}{theirs[column]}.weight",), transpose=is_hf)
            for ours, theirs in PROJECTIONS.items()
        ]
    rules += _block_rules(column)
    if config.is_pre_norm:
        rules += [WeightRule((f"norm.{part}",), (f"{top}{FINAL_NORM}.{part}",)) for part in ("weight", "bias")]
    if not config.tie_embeddings:
        rules.append(WeightRule(("lm_head.weight",), (head,), transpose=True))
    return WeightMap(
        rules=tuple(rules),
        ignore=(r"(model\.)?decoder\.version",) if is_hf else (),
        tied={head: f"{top}{OUTER['embed_tokens'][column]}.weight"} if config.tie_embeddings else {},
        optional_prefix=top,
    )


def _block_rules(column: int) -> Iterator[WeightRule]:
    ours, theirs = "blocks.{i}.", f"{TOP[column]}decoder.layers.{{i}}."
    for name, foreign in PARTS.items():
        for part in ("weight", "bias"):
            transpose = column == 0 and part == "weight"
            yield WeightRule((f"{ours}{name}.{part}",), (f"{theirs}{foreign[column]}.{part}",), transpose=transpose)
