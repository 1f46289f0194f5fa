"""The shape of a qwen: generations 1, 2, 2.5 and 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from llm_run.core.ops.rotary_spec import RotaryScaling, RotarySpec
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader

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
        shape = dict(
            generation=generation,
            vocab_size=read.integer("vocab_size"),
            hidden_size=read.integer("hidden_size"),
            num_layers=read.integer("num_hidden_layers"),
            num_heads=read.integer("num_attention_heads"),
            ffn_size=read.integer("intermediate_size"),
            max_positions=read.integer("max_position_embeddings", "seq_length"),
            tie_embeddings=read.flag("tie_word_embeddings", default=False),
            init_std=read.number("initializer_range", default=0.02),
        )
        return _read_first(cls, read, shape) if generation == 1 else _read_later(cls, read, shape, fields)

    def to_fields(self) -> dict[str, Any]:
        fields = {
            "model_type": next(name for name, number in MODEL_TYPES.items() if number == self.generation),
            "architectures": [ARCHITECTURES[self.generation][0]],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tie_embeddings,
            "initializer_range": self.init_std,
        }
        return fields | (self._first_fields() if self.generation == 1 else self._later_fields())

    def _first_fields(self) -> dict[str, Any]:
        scaling = self.rotary.scaling
        return {
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

    def _later_fields(self) -> dict[str, Any]:
        third = {"head_dim": self.head_dim, "attention_bias": False} if self.generation == 3 else {}
        return {
            "intermediate_size": self.ffn_size,
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
        known = ", ".join(MODEL_TYPES)
        read.refuse("model_type", model_type, "is no generation of qwen", f"Known: {known}.")
    read.check()
    return MODEL_TYPES[cast(str, model_type)]


def _read_first(cls: type[QwenConfig], read: FieldReader, shape: dict[str, Any]) -> QwenConfig:
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
    return cls(
        **(shape | {"ffn_size": shape["ffn_size"] // 2}),
        num_kv_heads=shape["num_heads"],
        head_dim=head_dim,
        norm_eps=eps,
        rotary=RotarySpec(head_dim, base, scaling=scaling),
        logn_length=length if logn else 0,
    )


def _read_later(
    cls: type[QwenConfig], read: FieldReader, shape: dict[str, Any], fields: Mapping[str, Any]
) -> QwenConfig:
    read.only("hidden_act", allowed=("silu", "swish"), remedy="qwen's feed-forward part is SwiGLU.")
    read.only("attention_bias", allowed=(shape["generation"] == 2,), remedy="No published model of it has that.")
    heads, hidden = shape["num_heads"], shape["hidden_size"]
    num_kv_heads = read.integer("num_key_value_heads", default=heads)
    if heads % num_kv_heads:
        read.refuse("num_key_value_heads", num_kv_heads, f"does not divide num_attention_heads ({heads})")
    if fields.get("head_dim") is None and hidden % heads:
        read.refuse("num_attention_heads", heads, f"does not divide hidden_size ({hidden})")
    head_dim = read.integer("head_dim", default=128 if shape["generation"] == 3 else max(1, hidden // heads))
    eps = read.number("rms_norm_eps", default=1e-6)
    _refuse_sliding_window(read, shape, fields)
    read.check()
    rotary = RotarySpec.from_fields(fields, head_dim)
    return cls(**shape, num_kv_heads=num_kv_heads, head_dim=head_dim, norm_eps=eps, rotary=rotary)


def _refuse_sliding_window(read: FieldReader, shape: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """A window matters where some layer has it and it is shorter than the longest sequence."""
    asked = read.flag("use_sliding_window", default=False)
    window = read.integer("sliding_window", default=4096)
    first = read.integer("max_window_layers", default=28, least=0)
    layers = fields.get("layer_types") or ["sliding_attention"] * (shape["num_layers"] - first)
    if asked and "sliding_attention" in layers and window < shape["max_positions"]:
        remedy = f"Set it to false, and max_position_embeddings to at most {window}: up to there it changes nothing."
        read.refuse("use_sliding_window", True, "asks for a window that llm-run does not have", remedy)
