"""A model's shape as the keys of a GGUF header: the inverse of ``gguf_fields``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .gguf_fields import ROTARY_FACTORS

if TYPE_CHECKING:
    from ..ops.rotary_spec import RotarySpec
    from ..registry.facts import ModelConfig
    from ..registry.family import Family

ALIBI_MAX_BIAS = 8.0
"""What slopes of the ALiBi paper are written as."""


def choose_architecture(family: Family, config: ModelConfig) -> str | None:
    """Return ``general.architecture``: the model's type where GGUF has it, else the family's first; ``None``: none."""
    known = family.card.gguf_architectures
    said = str(config.to_fields().get("model_type"))
    return said if said in known else known[0] if known else None


def describe_shape(config: ModelConfig, architecture: str) -> dict[str, Any]:
    """Return the keys that say the shape. What a model does not have is left out, or said and not looked at."""
    keys: dict[str, Any] = {
        "block_count": config.num_layers,
        "context_length": config.max_positions,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.ffn_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "vocab_size": config.vocab_size,
    }
    eps = getattr(config, "norm_eps", None)
    if eps is not None:
        # One of the two is read, by the kind of norm that the architecture has.
        keys["attention.layer_norm_rms_epsilon"] = keys["attention.layer_norm_epsilon"] = float(eps)
    rotary: RotarySpec | None = getattr(config, "rotary", None)
    if rotary is not None:
        keys |= _describe_rotary(rotary)
    elif config.to_fields().get("alibi") or not _has_positions(config):
        keys["attention.max_alibi_bias"] = ALIBI_MAX_BIAS
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def rotary_factors(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return the table of a rotary embedding whose long waves are stretched, float32, by its tensor's name."""
    rotary: RotarySpec | None = getattr(config, "rotary", None)
    if rotary is None or rotary.scaling is None or rotary.scaling.kind != "llama3":
        return {}
    plain = type(rotary)(rotary.dim, rotary.base).inverse_wavelengths(1)[0]
    stretched = rotary.inverse_wavelengths(1)[0]
    return {ROTARY_FACTORS: np.array(plain, dtype=np.float32) / np.array(stretched, dtype=np.float32)}


def _describe_rotary(rotary: RotarySpec) -> dict[str, Any]:
    keys: dict[str, Any] = {"rope.dimension_count": rotary.dim, "rope.freq_base": float(rotary.base)}
    scaling = rotary.scaling
    if scaling is None or scaling.kind == "llama3":
        return keys
    keys |= {"rope.scaling.type": scaling.kind, "rope.scaling.factor": float(scaling.factor)}
    if scaling.original_max_positions:
        keys["rope.scaling.original_context_length"] = scaling.original_max_positions
    if scaling.kind == "yarn":
        keys |= {
            "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
            "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
            "rope.scaling.attn_factor": float(scaling.attention_factor),
        }
    return keys


def _has_positions(config: ModelConfig) -> bool:
    """Whether positions are embedded: a model that neither turns heads nor embeds positions has distances only."""
    fields = config.to_fields()
    return any(name in fields for name in ("n_positions", "n_ctx"))
