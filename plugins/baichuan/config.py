"""The shape of a baichuan: 7B turns queries and keys, 13B has ALiBi; the second generation normalizes its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_run.core.ops.rotary_spec import RotarySpec
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader

SECOND_VOCABULARY = 125696
ALIBI_LAYERS = 40
"""No config.json says which positions a model has: the code beside it does. 13B has 40 layers, 7B has 32."""


@dataclass(frozen=True, kw_only=True)
class BaichuanConfig(ModelConfig):
    """A baichuan."""

    norm_eps: float
    rotary: RotarySpec | None
    """``None``: attention with linear biases (ALiBi) instead."""
    norm_head: bool
    """Each row of the head counts by its direction only: it is divided by its length (Baichuan 2)."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> BaichuanConfig:
        read = FieldReader(fields)
        hidden_size = read.integer("hidden_size")
        num_heads = read.integer("num_attention_heads")
        num_layers = read.integer("num_hidden_layers")
        vocab_size = read.integer("vocab_size")
        read.only("hidden_act", allowed=("silu", "swish"), remedy="A baichuan's feed-forward part is SwiGLU.")
        read.only("tie_word_embeddings", allowed=(False,), remedy="A baichuan's head is a matrix of its own.")
        read.only("num_key_value_heads", allowed=(num_heads,), remedy="Every head of a baichuan has its own keys.")
        read.only("z_loss_weight", allowed=(0,), remedy="There is no z-loss here: set it to 0.")
        # Where PaddleNLP says that the model is a llama.
        read.only("fuse_attention_qkv", allowed=(False,), remedy="Save the model with separate q, k and v projections.")
        read.only(
            "fuse_attention_ffn", allowed=(False,), remedy="Save the model with separate gate and up projections."
        )
        if hidden_size % num_heads:
            read.refuse("num_attention_heads", num_heads, f"does not divide hidden_size ({hidden_size})")
        has_positions = fields.get("max_position_embeddings") is not None
        alibi = read.flag("alibi", default=num_layers == ALIBI_LAYERS or not has_positions)
        config: dict[str, Any] = dict(
            ffn_size=read.integer("intermediate_size"),
            max_positions=read.integer("max_position_embeddings", "model_max_length", default=4096),
            init_std=read.number("initializer_range", default=0.02),
            norm_eps=read.number("rms_norm_eps", default=1e-6),
            norm_head=read.flag("norm_head", default=vocab_size == SECOND_VOCABULARY),
        )
        read.check()
        head_dim = hidden_size // num_heads
        return cls(
            vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers, num_heads=num_heads,
            num_kv_heads=num_heads, head_dim=head_dim,
            rotary=None if alibi else RotarySpec.from_fields(fields, head_dim), **config,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        fields = {
            "model_type": "baichuan",
            "architectures": ["BaichuanForCausalLM"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.ffn_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_act": "silu",
            "model_max_length": self.max_positions,
            "tie_word_embeddings": False,
            "initializer_range": self.init_std,
            "rms_norm_eps": self.norm_eps,
            "alibi": self.rotary is None,
            "norm_head": self.norm_head,
        }
        if self.rotary is None:
            return fields
        return {**fields, "max_position_embeddings": self.max_positions, **self.rotary.to_fields()}


def _baichuan(
    vocab: int, hidden: int, layers: int, heads: int, ffn: int, positions: int, *, alibi: bool, norm_head: bool
) -> BaichuanConfig:
    head_dim = hidden // heads
    return BaichuanConfig(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=head_dim, ffn_size=ffn, max_positions=positions, norm_eps=1e-6, norm_head=norm_head,
        rotary=None if alibi else RotarySpec(head_dim),
    )  # fmt: skip


# huggingface.co/baichuan-inc, config.json and modeling_baichuan.py of each; Yang et al. 2023, arXiv:2309.10305, table 1
SIZES: dict[str, BaichuanConfig] = {
    "tiny": _baichuan(512, 64, 4, 4, 176, 512, alibi=False, norm_head=True),
    "tiny-13b": _baichuan(512, 96, 3, 6, 176, 512, alibi=True, norm_head=False),
    "baichuan2-7b": _baichuan(SECOND_VOCABULARY, 4096, 32, 32, 11008, 4096, alibi=False, norm_head=True),
    "baichuan2-13b": _baichuan(SECOND_VOCABULARY, 5120, 40, 40, 13696, 4096, alibi=True, norm_head=True),
    "baichuan-7b": _baichuan(64000, 4096, 32, 32, 11008, 4096, alibi=False, norm_head=False),
    "baichuan-13b": _baichuan(64000, 5120, 40, 40, 13696, 4096, alibi=True, norm_head=False),
}
