"""The shape of a qwen: generations 1, 2, 2.5 and 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from llm_run.core.ops.rotary_spec import RotaryScaling, RotarySpec
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader
from llm_run.core.registry.usual_fields import read_grouped_heads, read_shape, size_row, usual_fields

Generation = Literal[1, 2, 3]
"""2 is 2.5 as well: they have one architecture."""

ARCHITECTURES: dict[Generation, tuple[str, ...]] = {
    1: ("QWenLMHeadModel", "QWenForCausalLM"),
    2: ("Qwen2ForCausalLM",),
    3: ("Qwen3ForCausalLM",),
}
MODEL_TYPES: dict[str, Generation] = {"qwen": 1, "qwen2": 2, "qwen3": 3}


@dataclass(frozen=True, kw_only=True)
class QwenConfig(ModelConfig):
    """A qwen: what its three generations differ in follows from ``generation``."""

    generation: Generation
    norm_eps: float
    rotary: RotarySpec
    """The scaling ``dynamic_pow2`` (generation 1) applies outside of training only."""
    logn_length: int = 0
    """Generation 1: queries beyond this many tokens are sharpened, outside of training; 0 for none."""

    def has_bias(self, linear: str) -> bool:
        """Whether a linear layer of a block (``attention.q_proj``) has a bias."""
        return self.generation < 3 and linear in ("attention.q_proj", "attention.k_proj", "attention.v_proj")

    @property
    def qk_norm(self) -> bool:
        """Each head of queries and keys is normalised."""
        return self.generation == 3

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> QwenConfig:
        generation = _generation(fields)
        read = FieldReader(fields)
        shape = read_shape(read, positions=("max_position_embeddings", "seq_length")) | {"generation": generation}
        return _read_first(read, shape) if generation == 1 else _read_later(read, shape, fields)

    def to_fields(self) -> dict[str, Any]:
        fields = {
            "model_type": next(name for name, number in MODEL_TYPES.items() if number == self.generation),
            "architectures": [ARCHITECTURES[self.generation][0]],
            **usual_fields(self),
        }
        if self.generation == 1:
            scaling = self.rotary.scaling
            return fields | {
                "intermediate_size": 2 * self.ffn_size,
                "layer_norm_epsilon": self.norm_eps,
                "kv_channels": self.head_dim,
                "rotary_pct": 1.0,
                "rotary_emb_base": self.rotary.base,
                "seq_length": self.logn_length or (scaling.original_max_positions if scaling else self.max_positions),
                "use_dynamic_ntk": scaling is not None,
                "use_logn_attn": self.logn_length > 0,
                "no_bias": True,
            }
        third = {"head_dim": self.head_dim, "attention_bias": False} if self.generation == 3 else {}
        return fields | {
            "num_key_value_heads": self.num_kv_heads,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_eps,
            "use_sliding_window": False,
            **third,
            **self.rotary.to_fields(),
        }


def _generation(fields: Mapping[str, Any]) -> Generation:
    for generation, names in ARCHITECTURES.items():
        if set(fields.get("architectures") or ()) & set(names):
            return generation
    read = FieldReader(fields)
    model_type = fields.get("model_type")
    if model_type not in MODEL_TYPES:
        read.refuse("model_type", model_type, "is no generation of qwen", f"Known: {', '.join(MODEL_TYPES)}.")
    read.check()
    return MODEL_TYPES[cast(str, model_type)]


def _read_first(read: FieldReader, shape: dict[str, Any]) -> QwenConfig:
    read.only("no_bias", allowed=(True,), remedy="Published models have a bias on queries, keys and values only.")
    read.only("rotary_pct", allowed=(1, 1.0), remedy="Published models rotate whole heads.")
    read.only("scale_attn_weights", allowed=(True,), remedy="Published models scale by the size of a head.")
    head_dim = read.integer("kv_channels", "head_dim", default=shape["hidden_size"] // shape["num_heads"] or 1)
    if head_dim * shape["num_heads"] != shape["hidden_size"]:
        read.refuse("kv_channels", head_dim, "times num_attention_heads is not hidden_size")
    if shape["ffn_size"] % 2:
        read.refuse("intermediate_size", shape["ffn_size"], "is odd, and each branch is half of it")
    length = read.integer("seq_length", "max_position_embeddings")
    dynamic = read.flag("use_dynamic_ntk", default=True)
    logn = read.flag("use_logn_attn", default=True)
    eps = read.number("layer_norm_epsilon", "rms_norm_eps", default=1e-6)
    base = read.number("rotary_emb_base", "rope_theta", default=10000.0)
    read.check()
    scaling = RotaryScaling(kind="dynamic_pow2", original_max_positions=length) if dynamic else None
    shape |= dict(ffn_size=shape["ffn_size"] // 2, num_kv_heads=shape["num_heads"], head_dim=head_dim)
    rotary = RotarySpec(head_dim, base, scaling=scaling)
    return QwenConfig(**shape, norm_eps=eps, rotary=rotary, logn_length=length if logn else 0)


def _read_later(read: FieldReader, shape: dict[str, Any], fields: Mapping[str, Any]) -> QwenConfig:
    read.only("hidden_act", allowed=("silu", "swish"), remedy="qwen's feed-forward part is SwiGLU.")
    read.only("attention_bias", allowed=(shape["generation"] == 2,), remedy="No published model of it has that.")
    shape = read_grouped_heads(read, shape, head_dim=128 if shape["generation"] == 3 else 0)
    eps = read.number("rms_norm_eps", default=1e-6)
    _refuse_sliding_window(read, shape, fields)
    read.check()
    return QwenConfig(**shape, norm_eps=eps, rotary=RotarySpec.from_fields(fields, shape["head_dim"]))


def _refuse_sliding_window(read: FieldReader, shape: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """A window matters where some layer has it and it is shorter than the longest sequence."""
    asked = read.flag("use_sliding_window", default=False)
    window = read.integer("sliding_window", default=4096)
    first = read.integer("max_window_layers", default=28, least=0)
    layers = fields.get("layer_types") or ["sliding_attention"] * (shape["num_layers"] - first)
    if asked and "sliding_attention" in layers and window < shape["max_positions"]:
        remedy = f"Set it to false, and max_position_embeddings to at most {window}: up to there it changes nothing."
        read.refuse("use_sliding_window", True, "asks for a window that llm-run does not have", remedy)


def _qwen(
    generation: Generation, *row: int,
    head_dim: int = 0, eps: float = 1e-6, base: float = 1e6, tie: bool = False, length: int = 0,
) -> QwenConfig:  # fmt: skip
    """Return a size: vocabulary, hidden size, layers, heads, key/value heads, feed-forward size, positions.

    ``length`` is what generation 1 was made for, and is stretched from.
    """
    shape = size_row(*row, head_dim=head_dim)
    scaling = RotaryScaling(kind="dynamic_pow2", original_max_positions=length) if length else None
    rotary = RotarySpec(shape["head_dim"], base, scaling=scaling)
    return QwenConfig(
        **shape, generation=generation, norm_eps=eps, rotary=rotary, tie_embeddings=tie, logn_length=length
    )


# Names are those of huggingface.co/Qwen, in small letters and with "qwen-" in front; base models where they differ.
SIZES: dict[str, QwenConfig] = {
    "tiny": _qwen(3, 512, 64, 4, 4, 2, 176, 512, head_dim=24),
    "tiny-v1": _qwen(1, 512, 64, 4, 4, 4, 176, 512, base=1e4, length=256),
    "tiny-v2": _qwen(2, 512, 64, 4, 4, 2, 176, 512, tie=True),
    "tiny-v3": _qwen(3, 512, 64, 4, 4, 2, 176, 512, head_dim=24, tie=True),
    # Bai et al. 2023, arXiv:2309.16609, table 1
    "qwen-1.8b": _qwen(1, 151936, 2048, 24, 16, 16, 5504, 8192, base=1e4, length=8192),
    "qwen-7b": _qwen(1, 151936, 4096, 32, 32, 32, 11008, 32768, base=1e4, length=8192),
    "qwen-14b": _qwen(1, 152064, 5120, 40, 40, 40, 13696, 8192, base=1e4, length=2048),
    "qwen-72b": _qwen(1, 152064, 8192, 80, 64, 64, 24576, 32768, base=1e6, length=32768),
    # Yang et al. 2024, arXiv:2407.10671, table 1
    "qwen2-0.5b": _qwen(2, 151936, 896, 24, 14, 2, 4864, 131072, tie=True),
    "qwen2-1.5b": _qwen(2, 151936, 1536, 28, 12, 2, 8960, 131072, tie=True),
    "qwen2-7b": _qwen(2, 152064, 3584, 28, 28, 4, 18944, 131072),
    "qwen2-72b": _qwen(2, 152064, 8192, 80, 64, 8, 29568, 131072, eps=1e-5),
    # Qwen team 2024, arXiv:2412.15115, table 1
    "qwen2.5-0.5b": _qwen(2, 151936, 896, 24, 14, 2, 4864, 32768, tie=True),
    "qwen2.5-1.5b": _qwen(2, 151936, 1536, 28, 12, 2, 8960, 131072, tie=True),
    "qwen2.5-3b": _qwen(2, 151936, 2048, 36, 16, 2, 11008, 32768, tie=True),
    "qwen2.5-7b": _qwen(2, 152064, 3584, 28, 28, 4, 18944, 131072),
    "qwen2.5-14b": _qwen(2, 152064, 5120, 48, 40, 8, 13824, 131072, eps=1e-5),
    "qwen2.5-32b": _qwen(2, 152064, 5120, 64, 40, 8, 27648, 131072, eps=1e-5),
    "qwen2.5-72b": _qwen(2, 152064, 8192, 80, 64, 8, 29568, 131072, eps=1e-5),
    # Qwen team 2025, arXiv:2505.09388, table 1
    "qwen3-0.6b": _qwen(3, 151936, 1024, 28, 16, 8, 3072, 40960, head_dim=128, tie=True),
    "qwen3-1.7b": _qwen(3, 151936, 2048, 28, 16, 8, 6144, 40960, head_dim=128, tie=True),
    "qwen3-4b": _qwen(3, 151936, 2560, 36, 32, 8, 9728, 40960, head_dim=128, tie=True),
    "qwen3-8b": _qwen(3, 151936, 4096, 36, 32, 8, 12288, 40960, head_dim=128),
    "qwen3-14b": _qwen(3, 151936, 5120, 40, 40, 8, 17408, 40960, head_dim=128),
    "qwen3-32b": _qwen(3, 151936, 5120, 64, 64, 8, 25600, 40960, head_dim=128),
}
