"""The shape of an OPT, in Hugging Face's spelling or PaddleNLP's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader


@dataclass(frozen=True, kw_only=True)
class OptConfig(ModelConfig):
    """An OPT."""

    word_size: int
    """Width of the embedding and of the head. Where it is not ``hidden_size``, matrices lead from one to the other."""
    is_pre_norm: bool = True
    """Attention and feed-forward read normalised states. Otherwise (350m) their sums are normalised."""
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
    """Share of values set to 0 in training: of attention weights, of what a block adds."""

    @property
    def has_projections(self) -> bool:
        """Whether the embedding has another width than the blocks."""
        return self.word_size != self.hidden_size

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> OptConfig:
        read = FieldReader(fields)
        _refuse_other_networks(read)
        hidden_size = read.integer("hidden_size")
        num_heads = read.integer("num_attention_heads")
        if hidden_size % num_heads:
            read.refuse("num_attention_heads", num_heads, f"does not divide hidden_size ({hidden_size})")
        config: dict[str, Any] = dict(
            vocab_size=read.integer("vocab_size"),
            num_layers=read.integer("num_hidden_layers"),
            ffn_size=read.integer("ffn_dim", "intermediate_size"),
            max_positions=read.integer("max_position_embeddings", default=2048),
            tie_embeddings=read.flag("tie_word_embeddings", default=True),
            init_std=read.number("init_std", "initializer_range", default=0.02),
            word_size=read.integer("word_embed_proj_dim", default=hidden_size),
            is_pre_norm=_is_pre_norm(fields, read),
            attention_dropout=read.share("attention_dropout", "attention_probs_dropout_prob", default=0.0),
            output_dropout=read.share("dropout", "hidden_dropout_prob", default=0.1),
        )
        read.check()
        return cls(
            hidden_size=hidden_size, num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden_size // num_heads,
            **config,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_type": "opt",
            "architectures": ["OPTForCausalLM"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "ffn_dim": self.ffn_size,
            "max_position_embeddings": self.max_positions,
            "word_embed_proj_dim": self.word_size,
            "do_layer_norm_before": self.is_pre_norm,
            "activation_function": "relu",
            "init_std": self.init_std,
            "tie_word_embeddings": self.tie_embeddings,
            "attention_dropout": self.attention_dropout,
            "dropout": self.output_dropout,
        }


def _refuse_other_networks(read: FieldReader) -> None:
    """Note what would compute other numbers than the network here."""
    read.only("activation_function", "hidden_act", allowed=("relu",), remedy="An OPT's feed-forward part is ReLU.")
    read.only("enable_bias", allowed=(True,), remedy="An OPT's linear layers have biases.")
    read.only("layer_norm_elementwise_affine", allowed=(True,), remedy="An OPT's norms have scale and offset.")
    read.only("_remove_final_layer_norm", allowed=(False,), remedy="Convert the model with a current transformers.")
    read.only("layerdrop", allowed=(0, 0.0), remedy="Blocks are not left out in training: set it to 0.")


def _is_pre_norm(fields: Mapping[str, Any], read: FieldReader) -> bool:
    """Return Hugging Face's field, or PaddleNLP's of the same meaning."""
    name = "do_layer_norm_before" if fields.get("do_layer_norm_before") is not None else "normalize_before"
    return read.flag(name, default=True)


def _opt(hidden: int, layers: int, heads: int, **more: Any) -> OptConfig:
    return OptConfig(
        vocab_size=50272, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, ffn_size=4 * hidden, max_positions=2048, tie_embeddings=True, output_dropout=0.1,
        **{"word_size": hidden, **more},
    )  # fmt: skip


def _tiny(**more: Any) -> OptConfig:
    return OptConfig(
        vocab_size=512, hidden_size=64, num_layers=4, num_heads=4, num_kv_heads=4, head_dim=16, ffn_size=256,
        max_positions=512, **{"word_size": 64, "tie_embeddings": True, **more},
    )  # fmt: skip


SIZES: dict[str, OptConfig] = {
    "tiny": _tiny(),
    "tiny-350m": _tiny(word_size=32, is_pre_norm=False),
    "tiny-untied": _tiny(word_size=32, tie_embeddings=False),
    # Zhang et al. 2022, arXiv:2205.01068, table 1; names of huggingface.co/facebook
    "opt-125m": _opt(768, 12, 12),
    "opt-350m": _opt(1024, 24, 16, word_size=512, is_pre_norm=False),
    "opt-1.3b": _opt(2048, 24, 32),
    "opt-2.7b": _opt(2560, 32, 32),
    "opt-6.7b": _opt(4096, 32, 32),
    "opt-13b": _opt(5120, 40, 40),
    "opt-30b": _opt(7168, 48, 56),
    "opt-66b": _opt(9216, 64, 72),
    "opt-175b": _opt(12288, 96, 96),
}
