"""The shape of a BLOOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader


@dataclass(frozen=True, kw_only=True)
class BloomConfig(ModelConfig):
    """A BLOOM. Positions are distances (ALiBi): ``max_positions`` is what it was trained on."""

    norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
    """Share of values set to 0 in training: of attention weights, of what a block adds."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> BloomConfig:
        read = FieldReader(fields)
        read.only(
            "apply_residual_connection_post_layernorm",
            allowed=(False,), remedy="A BLOOM adds to what stands before the norm.",
        )  # fmt: skip
        read.only("alibi_bias_max", allowed=(8.0,), remedy="A BLOOM's slopes are those of the ALiBi paper.")
        read.only("use_long_sequence_strategies", allowed=(False,), remedy="Only the model's own ALiBi is supported.")
        # slow_but_exact, pretraining_tp, masked_softmax_fusion and attention_softmax_in_fp32 concern rounding only.
        hidden_size = read.integer("hidden_size", "n_embed")
        num_heads = read.integer("n_head", "num_attention_heads")
        if hidden_size % num_heads:
            read.refuse("n_head", num_heads, f"does not divide the hidden size ({hidden_size})")
        read.only("intermediate_size", allowed=(4 * hidden_size,), remedy="A BLOOM's is four times the hidden size.")
        config: dict[str, Any] = dict(
            vocab_size=read.integer("vocab_size"),
            num_layers=read.integer("n_layer", "num_hidden_layers"),
            max_positions=read.integer("seq_length", "max_position_embeddings", default=2048),
            tie_embeddings=read.flag("tie_word_embeddings", default=True),
            init_std=read.number("initializer_range", default=0.02),
            norm_eps=read.number("layer_norm_epsilon", default=1e-5),
            attention_dropout=read.share("attention_dropout", default=0.0),
            output_dropout=read.share("hidden_dropout", default=0.0),
        )
        read.check()
        return cls(
            hidden_size=hidden_size, num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden_size // num_heads,
            ffn_size=4 * hidden_size, **config,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_type": "bloom",
            "architectures": ["BloomForCausalLM"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "n_layer": self.num_layers,
            "n_head": self.num_heads,
            "seq_length": self.max_positions,
            "layer_norm_epsilon": self.norm_eps,
            "initializer_range": self.init_std,
            "tie_word_embeddings": self.tie_embeddings,
            "attention_dropout": self.attention_dropout,
            "hidden_dropout": self.output_dropout,
            "apply_residual_connection_post_layernorm": False,
        }


def _bloom(vocab: int, hidden: int, layers: int, heads: int, positions: int = 2048, *, tie: bool = True) -> BloomConfig:
    return BloomConfig(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, ffn_size=4 * hidden, max_positions=positions, tie_embeddings=tie,
    )  # fmt: skip


SIZES: dict[str, BloomConfig] = {
    # Six heads: no power of two, so that the slopes are of both series.
    "tiny": _bloom(512, 72, 4, 6, 512),
    "tiny-untied": _bloom(512, 64, 4, 4, 512, tie=False),
    # BigScience 2022, arXiv:2211.05100, table 3; names of huggingface.co/bigscience. BLOOMZ has the same shapes.
    "bloom-560m": _bloom(250880, 1024, 24, 16),
    "bloom-1b1": _bloom(250880, 1536, 24, 16),
    "bloom-1b7": _bloom(250880, 2048, 24, 16),
    "bloom-3b": _bloom(250880, 2560, 30, 32),
    "bloom-7b1": _bloom(250880, 4096, 30, 32),
    "bloom": _bloom(250880, 14336, 70, 112),
}
