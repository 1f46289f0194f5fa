"""The shape of a llama: generations 1 to 3.3, whatever calls itself ``llama``, and mistral without its window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_run.core.ops.rotary_spec import RotaryScaling, RotarySpec
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader
from llm_run.core.registry.usual_fields import read_grouped_heads, read_shape, size_row, usual_fields


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(ModelConfig):
    """A llama."""

    norm_eps: float
    rotary: RotarySpec
    attention_bias: bool = False
    """All four projections of attention have a bias."""
    mlp_bias: bool = False
    """All three projections of the feed-forward part have a bias."""

    def has_bias(self, linear: str) -> bool:
        """Whether a linear layer of a block (``attention.q_proj``) has a bias."""
        return self.attention_bias if linear.startswith("attention.") else self.mlp_bias

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> LlamaConfig:
        read = FieldReader(fields)
        read.only("hidden_act", allowed=("silu", "swish"), remedy="llama's feed-forward part is SwiGLU.")
        read.only("alibi", allowed=(False,), remedy="A llama with ALiBi is a Baichuan 13B: use that family.")
        read.only("fuse_attention_qkv", allowed=(False,), remedy="Save the model with separate q, k and v projections.")
        read.only(
            "fuse_attention_ffn", allowed=(False,), remedy="Save the model with separate gate and up projections."
        )
        read.only("num_local_experts", allowed=(0,), remedy="A llama here has one feed-forward part, no experts.")
        # pretraining_tp only reorders sums in an old transformers release, so it is not read.
        shape = read_shape(read, positions=("max_position_embeddings", "n_positions"), default_positions=2048)
        shape = read_grouped_heads(read, shape) | dict(
            norm_eps=read.number("rms_norm_eps", default=1e-6),
            attention_bias=read.flag("attention_bias", default=False),
            mlp_bias=read.flag("mlp_bias", default=False),
        )
        _refuse_sliding_window(read, fields, shape["max_positions"])
        read.check()
        return cls(**shape, rotary=RotarySpec.from_fields(fields, shape["head_dim"]))

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            **usual_fields(self),
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_eps,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            **self.rotary.to_fields(),
        }


def _refuse_sliding_window(read: FieldReader, fields: Mapping[str, Any], max_positions: int) -> None:
    """Without a window shorter than its longest sequence, a mistral is a llama by another name."""
    window = fields.get("sliding_window", 4096 if fields.get("model_type") == "mistral" else None)
    if isinstance(window, int) and window < max_positions:
        remedy = f"Set max_position_embeddings to at most {window}: up to there the window changes nothing."
        read.refuse("sliding_window", window, "asks for windowed attention, which llm-run does not have", remedy)


def _llama(
    *row: int, eps: float = 1e-5, base: float = 10000.0, scaling: RotaryScaling | None = None, **more: Any
) -> LlamaConfig:
    """Return a size: vocabulary, hidden size, layers, heads, key/value heads, feed-forward size, positions."""
    shape = size_row(*row)
    rotary = RotarySpec(shape["head_dim"], base, scaling=scaling)
    return LlamaConfig(**shape, norm_eps=eps, rotary=rotary, **more)


def _stretched(factor: float, original: int = 8192) -> RotaryScaling:
    return RotaryScaling(
        kind="llama3", factor=factor, original_max_positions=original, low_freq_factor=1.0, high_freq_factor=4.0
    )


# Names are those of huggingface.co: huggyllama/llama-7b, meta-llama/Llama-3.1-8B, HuggingFaceTB/SmolLM2-135M, …
SIZES: dict[str, LlamaConfig] = {
    "tiny": _llama(512, 64, 4, 4, 2, 176, 512),
    "tiny-tied": _llama(512, 64, 4, 4, 4, 176, 512, base=500000.0, scaling=_stretched(8, 128), tie_embeddings=True),
    "tiny-bias": _llama(512, 64, 4, 4, 1, 176, 512, attention_bias=True, mlp_bias=True),
    # Touvron et al. 2023, arXiv:2302.13971, table 2
    "llama-7b": _llama(32000, 4096, 32, 32, 32, 11008, 2048, eps=1e-6),
    "llama-13b": _llama(32000, 5120, 40, 40, 40, 13824, 2048, eps=1e-6),
    "llama-30b": _llama(32000, 6656, 60, 52, 52, 17920, 2048, eps=1e-6),
    "llama-65b": _llama(32000, 8192, 80, 64, 64, 22016, 2048),
    # Touvron et al. 2023, arXiv:2307.09288, table 1
    "llama-2-7b": _llama(32000, 4096, 32, 32, 32, 11008, 4096),
    "llama-2-13b": _llama(32000, 5120, 40, 40, 40, 13824, 4096),
    "llama-2-70b": _llama(32000, 8192, 80, 64, 8, 28672, 4096),
    # Grattafiori et al. 2024, arXiv:2407.21783, table 3
    "llama-3-8b": _llama(128256, 4096, 32, 32, 8, 14336, 8192, base=500000.0),
    "llama-3-70b": _llama(128256, 8192, 80, 64, 8, 28672, 8192, base=500000.0),
    "llama-3.1-8b": _llama(128256, 4096, 32, 32, 8, 14336, 131072, base=500000.0, scaling=_stretched(8)),
    "llama-3.1-70b": _llama(128256, 8192, 80, 64, 8, 28672, 131072, base=500000.0, scaling=_stretched(8)),
    "llama-3.1-405b": _llama(128256, 16384, 126, 128, 8, 53248, 131072, base=500000.0, scaling=_stretched(8)),
    "llama-3.2-1b": _llama(
        128256, 2048, 16, 32, 8, 8192, 131072, base=500000.0, scaling=_stretched(32), tie_embeddings=True
    ),
    "llama-3.2-3b": _llama(
        128256, 3072, 28, 24, 8, 8192, 131072, base=500000.0, scaling=_stretched(32), tie_embeddings=True
    ),
    # Allal et al. 2025, arXiv:2502.02737
    "smollm2-135m": _llama(49152, 576, 30, 9, 3, 1536, 8192, base=100000.0, tie_embeddings=True, init_std=1 / 24),
    "smollm2-360m": _llama(49152, 960, 32, 15, 5, 2560, 8192, base=100000.0, tie_embeddings=True),
    "smollm2-1.7b": _llama(49152, 2048, 24, 32, 32, 8192, 8192, base=130000.0, tie_embeddings=True),
}
