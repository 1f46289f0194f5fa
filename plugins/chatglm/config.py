"""The shape of a ChatGLM-6B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from llm_run.core.ops.rotary_spec import RotarySpec
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader

if TYPE_CHECKING:
    import numpy as np

    from llm_run.core.data.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ChatGlmConfig(ModelConfig):
    """A ChatGLM of the first generation."""

    norm_eps: float
    mask_id: int
    """``[MASK]``: a blank of a few words."""
    gmask_id: int
    """``[gMASK]``: a blank that runs to the end of the text."""
    bos_id: int
    """``<sop>``: opens the text that fills the blank. The context ends before it."""
    eos_id: int
    """``<eop>``: closes it."""
    pad_id: int

    prefix_lm: ClassVar[bool] = True

    @property
    def rotary(self) -> RotarySpec:
        """Of either half of a head: the first turns with the position, the second with the block position."""
        return RotarySpec(self.head_dim // 2)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ChatGlmConfig:
        read = FieldReader(fields)
        for key in {"multi_query_attention", "padded_vocab_size"} & fields.keys():
            read.refuse(key, fields[key], "is of a later ChatGLM", "Use its own family.")
        read.only("position_encoding_2d", allowed=(True,), remedy="ChatGLM-6B has two-dimensional positions.")
        read.only("activation", allowed=("gelu",), remedy="ChatGLM-6B's feed-forward part is GELU.")
        read.only("tie_word_embeddings", allowed=(True,), remedy="ChatGLM-6B's head is its embedding.")
        # True is neutral: the queries are divided by a number by which the scores are multiplied again.
        read.only("attention_scale", allowed=(True,), remedy="ChatGLM-6B's scores are divided by the root of the size.")
        read.only("quantization_bit", allowed=(0,), remedy="Convert the unquantized model.")
        read.only("use_long_sequence_strategies", allowed=(False,), remedy="Only the model's own rotary is supported.")
        read.only("pre_seq_len", allowed=(0,), remedy="Load the model without its prefix encoder.")
        hidden_size = read.integer("hidden_size", default=4096)
        num_heads = read.integer("num_attention_heads", default=32)
        if hidden_size % (4 * num_heads):
            read.refuse("num_attention_heads", num_heads, f"times 4 does not divide hidden_size ({hidden_size})")
        vocab_size = read.integer("vocab_size")
        ids = {
            name: read.token_id(FIELDS[name], vocab_size=vocab_size, default=number)
            for name, number in DEFAULT_IDS.items()
        }
        config: dict[str, Any] = dict(
            num_layers=read.integer("num_layers", "num_hidden_layers", default=28),
            ffn_size=read.integer("inner_hidden_size", default=4 * hidden_size),
            max_positions=read.integer("max_sequence_length", default=2048),
            norm_eps=read.number("layernorm_epsilon", default=1e-5),
            init_std=read.number("initializer_range", default=0.02),
        )
        read.check()
        return cls(
            vocab_size=vocab_size, hidden_size=hidden_size, num_heads=num_heads, num_kv_heads=num_heads,
            head_dim=hidden_size // num_heads, tie_embeddings=True, **config, **ids,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_type": "chatglm",
            "architectures": ["ChatGLMModel"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "inner_hidden_size": self.ffn_size,
            "max_sequence_length": self.max_positions,
            "layernorm_epsilon": self.norm_eps,
            "initializer_range": self.init_std,
            "position_encoding_2d": True,
            "tie_word_embeddings": True,
            **{field: getattr(self, name) for name, field in FIELDS.items()},
        }

    def with_tokenizer(self, tokenizer: Tokenizer) -> ChatGlmConfig:
        ids: dict[str, Any] = {name: tokenizer.token_id(token) for name, token in TOKENS.items()}
        return replace(self, **{name: number for name, number in ids.items() if number is not None})

    def positions(self, ids_BS: np.ndarray, segments_BS: np.ndarray, prefix_BS: np.ndarray | None) -> np.ndarray:
        from llm_run.core.ops.block_positions import block_positions  # imports numpy

        blanks = ((self.gmask_id,), (self.mask_id,))
        return block_positions(ids_BS, segments_BS, prefix_BS, opening_id=self.bos_id, blank_ids=blanks)


TOKENS = {"mask_id": "[MASK]", "gmask_id": "[gMASK]", "bos_id": "<sop>", "eos_id": "<eop>", "pad_id": "<pad>"}
FIELDS = {name: f"{name.removesuffix('_id')}_token_id" for name in TOKENS}
DEFAULT_IDS = {"mask_id": 130000, "gmask_id": 130001, "bos_id": 130004, "eos_id": 130005, "pad_id": 3}
"""Of chatglm-6b: PaddleNLP leaves out what is default."""


def _chatglm(
    vocab: int, hidden: int, layers: int, heads: int, ffn: int, positions: int, first_special: int, pad: int = 3
) -> ChatGlmConfig:
    return ChatGlmConfig(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, ffn_size=ffn, max_positions=positions, tie_embeddings=True, norm_eps=1e-5,
        mask_id=first_special, gmask_id=first_special + 1, bos_id=first_special + 4, eos_id=first_special + 5,
        pad_id=pad,
    )  # fmt: skip


SIZES: dict[str, ChatGlmConfig] = {
    "tiny": _chatglm(512, 64, 4, 4, 256, 512, 500),
    # huggingface.co/THUDM/chatglm-6b, config.json; its first release still had 20000 image tokens before the text
    "chatglm-6b": _chatglm(130528, 4096, 28, 32, 16384, 2048, 130000),
    "chatglm-6b-v0": _chatglm(150528, 4096, 28, 32, 16384, 2048, 150000, pad=20003),
}
