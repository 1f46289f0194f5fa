"""The shape of a ChatGLM2 or ChatGLM3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_run.core.ops.rotary_spec import RotaryScaling, RotarySpec
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader

FIXED = {
    "add_bias_linear": False, "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
    "hidden_dropout": 0.0, "multi_query_attention": True, "original_rope": True, "post_layer_norm": True,
    "rmsnorm": True, "tie_word_embeddings": False,
}  # fmt: skip
"""What every published ChatGLM2 and ChatGLM3 has, so that the network here has nothing else."""
OFF = {"interleaved_qkv": False, "pre_seq_len": 0, "quantization_bit": 0, "use_long_sequence_strategies": False}
"""What would change the network, or the files, if it were switched on."""


@dataclass(frozen=True, kw_only=True)
class ChatGlm2Config(ModelConfig):
    """A ChatGLM of the second or third generation."""

    norm_eps: float
    rotary: RotarySpec
    """Of the first half of a head; the second half does not turn."""
    qkv_bias: bool
    generation: int
    """2 or 3: the chat format, and what ``rope_ratio`` means."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ChatGlm2Config:
        read = FieldReader(fields)
        for name, value in {**FIXED, **OFF}.items():
            read.only(name, allowed=(value,), remedy=f"Only {value} is.")
        hidden_size = read.integer("hidden_size", default=4096)
        num_heads = read.integer("num_attention_heads", default=32)
        num_kv_heads = read.integer("multi_query_group_num", "num_key_value_heads", default=1)
        head_dim = read.integer("kv_channels", "head_dim", default=max(1, hidden_size // num_heads))
        if num_heads % num_kv_heads:
            read.refuse("multi_query_group_num", num_kv_heads, f"does not divide num_attention_heads ({num_heads})")
        if head_dim % 4:
            read.refuse("kv_channels", head_dim, "is no multiple of 4: the halves of half a head turn together")
        # max_sequence_length is the size of PaddleNLP's rotary table: no limit here.
        config: dict[str, Any] = dict(
            vocab_size=read.integer("vocab_size", "padded_vocab_size"),
            num_layers=read.integer("num_layers", "num_hidden_layers", default=28),
            ffn_size=read.integer("ffn_hidden_size", "intermediate_size", default=13696),
            max_positions=read.integer("seq_length", "max_position_embeddings", default=32768),
            norm_eps=read.number("layernorm_epsilon", "rms_norm_eps", default=1e-5),
            qkv_bias=read.flag("add_qkv_bias", "attention_bias", default=False),
            init_std=read.number("initializer_range", default=0.02),
        )
        base, ratio = read.number("rope_theta", default=10000.0), read.number("rope_ratio", default=1.0)
        generation = _generation(fields, read, ratio, config["max_positions"] == 8192 or base != 10000.0)
        read.check()
        return cls(
            hidden_size=hidden_size, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim,
            rotary=_rotary(head_dim, base, ratio, generation), generation=generation, **config,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        stretched = self.rotary.scaling
        return {
            "model_type": "chatglm",
            "architectures": ["ChatGLMModel"],
            "generation": self.generation,
            "padded_vocab_size": self.vocab_size,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "ffn_hidden_size": self.ffn_size,
            "num_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "multi_query_group_num": self.num_kv_heads,
            "kv_channels": self.head_dim,
            "seq_length": self.max_positions,
            "layernorm_epsilon": self.norm_eps,
            "initializer_range": self.init_std,
            "add_qkv_bias": self.qkv_bias,
            "rope_ratio": self.rotary.base / 10000.0 if stretched is None else stretched.factor,
            **FIXED,
        }


def _generation(fields: Mapping[str, Any], read: FieldReader, ratio: float, looks_third: bool) -> int:
    """Return what the file says, or its name, or its numbers: a ChatGLM3 was made for 8192 tokens."""
    read.only("generation", allowed=(2, 3), remedy="This family has the second and the third.")
    name = str(fields.get("_name_or_path", ""))
    told = fields.get("generation") or next((number for number in (2, 3) if f"chatglm{number}" in name), None)
    if told is None and ratio != 1.0:
        reason = "divides positions in a ChatGLM2 and raises the base in a ChatGLM3, and the file names neither"
        read.refuse("rope_ratio", ratio, reason, 'Add "generation": 2, or 3.')
    if told == 2:
        read.only("rope_theta", allowed=(10000,), remedy="A ChatGLM2 has 10000.")
    return int(told or 2 + looks_third)


def _rotary(head_dim: int, base: float, ratio: float, generation: int) -> RotarySpec:
    """Return the embedding, stretched by ``ratio``: as by Chen et al. 2023, arXiv:2306.15595, or by a larger base."""
    if generation == 3:
        return RotarySpec(head_dim // 2, base * ratio, "interleaved")
    scaling = None if ratio == 1.0 else RotaryScaling(kind="linear", factor=ratio)
    return RotarySpec(head_dim // 2, base, "interleaved", scaling)


def _chatglm(
    vocab: int, hidden: int, layers: int, heads: int, ffn: int, positions: int, *, generation: int, ratio: float = 1.0
) -> ChatGlm2Config:
    return ChatGlm2Config(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=2,
        head_dim=hidden // heads, ffn_size=ffn, max_positions=positions, norm_eps=1e-5, qkv_bias=True,
        generation=generation, rotary=_rotary(hidden // heads, 10000.0, ratio, generation),
    )  # fmt: skip


SIZES: dict[str, ChatGlm2Config] = {
    "tiny": _chatglm(512, 64, 4, 4, 176, 512, generation=3),
    # huggingface.co/THUDM, config.json of each
    "chatglm2-6b": _chatglm(65024, 4096, 28, 32, 13696, 32768, generation=2),
    "chatglm3-6b": _chatglm(65024, 4096, 28, 32, 13696, 8192, generation=3),
    "chatglm3-6b-32k": _chatglm(65024, 4096, 28, 32, 13696, 32768, generation=3, ratio=50.0),
}
