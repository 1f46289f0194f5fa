"""The shape of a GPT-2 or GPT-3, in Hugging Face's spelling (GPT-2) or PaddleNLP's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""Hugging Face's names for the approximation by tanh; there ``gelu`` is exact."""


@dataclass(frozen=True, kw_only=True)
class GptConfig(ModelConfig):
    """A GPT."""

    norm_eps: float = 1e-5
    exact_gelu: bool = False
    """GELU is x * Phi(x) itself, not its approximation by tanh."""
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
    """Share of values set to 0 in training: of the embeddings, of attention weights, of what a block adds."""
    has_fused_qkv: bool = False
    """A PaddleNLP file of this model holds q, k and v of each head side by side, in one matrix."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> GptConfig:
        read = FieldReader(fields)
        _refuse_other_networks(read)
        read.only("activation_function", allowed=(*TANH_GELU, "gelu"), remedy="A GPT's feed-forward part is GELU.")
        # PaddleNLP computes "gelu" by tanh.
        read.only("hidden_activation", "hidden_act", allowed=("gelu",), remedy="A GPT's feed-forward part is GELU.")
        hidden_size = read.integer("n_embd", "hidden_size")
        num_heads = read.integer("n_head", "num_attention_heads")
        if hidden_size % num_heads:
            read.refuse("n_head", num_heads, f"does not divide the hidden size ({hidden_size})")
        config: dict[str, Any] = dict(
            vocab_size=read.integer("vocab_size"),
            num_layers=read.integer("n_layer", "num_hidden_layers"),
            ffn_size=read.integer("n_inner", "intermediate_size", default=4 * hidden_size),
            max_positions=read.integer("n_positions", "max_position_embeddings", "n_ctx"),
            tie_embeddings=read.flag("tie_word_embeddings", default=True),
            init_std=read.number("initializer_range", default=0.02),
            # PaddleNLP's layer_norm_eps is not read: its network has 1e-5, whatever the file says.
            norm_eps=read.number("layer_norm_epsilon", default=1e-5),
            embedding_dropout=read.share("embd_pdrop", "hidden_dropout_prob", default=0.1),
            attention_dropout=read.share("attn_pdrop", "attention_probs_dropout_prob", default=0.1),
            output_dropout=read.share("resid_pdrop", "hidden_dropout_prob", default=0.1),
            has_fused_qkv=read.flag("fuse_attention_qkv", default=False),
        )
        read.check()
        return cls(
            hidden_size=hidden_size, num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden_size // num_heads,
            exact_gelu=fields.get("activation_function") == "gelu", **config,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": self.vocab_size,
            "n_embd": self.hidden_size,
            "n_layer": self.num_layers,
            "n_head": self.num_heads,
            "n_inner": self.ffn_size,
            "n_positions": self.max_positions,
            "activation_function": "gelu" if self.exact_gelu else "gelu_new",
            "layer_norm_epsilon": self.norm_eps,
            "initializer_range": self.init_std,
            "tie_word_embeddings": self.tie_embeddings,
            "embd_pdrop": self.embedding_dropout,
            "attn_pdrop": self.attention_dropout,
            "resid_pdrop": self.output_dropout,
        }


def _refuse_other_networks(read: FieldReader) -> None:
    """Note what would compute other numbers than the network here."""
    read.only("normalize_before", allowed=(True,), remedy="A GPT normalises before attention and feed-forward.")
    scores = "A GPT's scores are divided by the root of the head size, in every layer alike."
    read.only("scale_attn_weights", allowed=(True,), remedy=scores)
    read.only("scale_attn_by_inverse_layer_idx", allowed=(False,), remedy=scores)
    read.only("scale_qk_coeff", allowed=(1.0,), remedy=scores)
    read.only("add_cross_attention", allowed=(False,), remedy="A GPT here has no encoder to look at.")
    read.only("num_experts", allowed=(0, 1), remedy="A GPT here has one feed-forward part, no experts.")
    # reorder_and_upcast_attn only guards 16-bit scores; those here are float32 anyway. type_vocab_size is of no use.


def _gpt(vocab: int, hidden: int, layers: int, heads: int) -> GptConfig:
    return GptConfig(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, ffn_size=4 * hidden, max_positions=1024, tie_embeddings=True,
        embedding_dropout=0.1, attention_dropout=0.1, output_dropout=0.1,
    )  # fmt: skip


def _tiny(**more: Any) -> GptConfig:
    return GptConfig(
        vocab_size=512, hidden_size=64, num_layers=4, num_heads=4, num_kv_heads=4, head_dim=16, ffn_size=256,
        max_positions=512, **more,
    )  # fmt: skip


SIZES: dict[str, GptConfig] = {
    "tiny": _tiny(tie_embeddings=True),
    "tiny-untied": _tiny(exact_gelu=True),
    # huggingface.co/openai-community. PaddleNLP's gpt2-en and its siblings are these, filled up to 50304 tokens.
    "gpt2": _gpt(50257, 768, 12, 12),
    "gpt2-medium": _gpt(50257, 1024, 24, 16),
    "gpt2-large": _gpt(50257, 1280, 36, 20),
    "gpt2-xl": _gpt(50257, 1600, 48, 25),
    # PaddleNLP, transformers/gpt/configuration.py; shapes of Brown et al. 2020, arXiv:2005.14165, table 2.1
    "gpt3-1.3b": _gpt(50304, 2048, 24, 16),
    "gpt3-6.7b": _gpt(50304, 4096, 32, 32),
    "gpt3-13b": _gpt(50304, 5120, 40, 40),
    "gpt3-89b": _gpt(51200, 12288, 48, 96),
    "gpt3-175b": _gpt(51200, 12288, 96, 96),
    # Zhang et al. 2020, arXiv:2012.00413
    "cpm-small-distill": _gpt(30000, 768, 12, 12),
    "cpm-large": _gpt(30000, 2560, 32, 32),
}
