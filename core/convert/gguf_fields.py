"""A GGUF header in the spelling of Hugging Face's ``config.json``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from .gguf_header import GgufHeader

ROTARY_FACTORS = "rope_freqs.weight"
"""Not a weight: the rotary scaling of a stretched model as a table. Families list it among the keys to ignore where
their configuration holds the formula."""

_COUNTS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_local_experts",
}
_NUMBERS = {
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "attention.max_alibi_bias": "alibi_bias_max",
    "rope.freq_base": "rope_theta",
}
_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
_SCALING = {
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
    "rope.scaling.attn_factor": "attention_factor",
}
_BIASES = {
    "blk.0.attn_q.bias": "attention_bias",
    "blk.0.attn_qkv.bias": "attention_bias",
    "blk.0.ffn_up.bias": "mlp_bias",
}


def translate(header: GgufHeader) -> dict[str, Any]:
    """Return the fields of a ``config.json``; ``model_type`` is the file's ``general.architecture``.

    Raises:
        RefusedError: the header lacks its architecture, or says what no ``config.json`` can.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise _refused(header, "general.architecture", architecture, "is missing: this GGUF file holds no model")
    fields: dict[str, Any] = {"model_type": architecture}
    for key, name in _COUNTS.items():
        value = metadata.get(f"{architecture}.{key}")
        if value is not None:
            fields[name] = _one_for_all_layers(header, f"{architecture}.{key}", value)
    for key, name in _NUMBERS.items():
        if f"{architecture}.{key}" in metadata:
            fields[name] = shortest(metadata[f"{architecture}.{key}"])
    for key, name in _TOKENS.items():
        if f"tokenizer.ggml.{key}" in metadata:
            fields[name] = metadata[f"tokenizer.ggml.{key}"]
    fields["vocab_size"] = _vocabulary(header, architecture)
    fields["tie_word_embeddings"] = "output.weight" not in header.tensors
    fields.update({name: True for tensor, name in _BIASES.items() if tensor in header.tensors})
    _add_rotary(header, architecture, fields)
    return fields


def shortest(value: float) -> float:
    """Return the decimal number that was meant: float32 1e-5 reads as 9.999999747378752e-06 in Python."""
    return float(str(np.float32(value)))


def _refused(header: GgufHeader, key: str, value: Any, reason: str) -> RefusedError:
    shown = "" if value is None else str(value)[:80]
    return RefusedError(Problem(f"{header.path}: {key}", shown, reason, "Use the model in Hugging Face format."))


def _one_for_all_layers(header: GgufHeader, key: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(set(value)) != 1:
        raise _refused(header, key, value, "differs from layer to layer")
    return value[0]


def _vocabulary(header: GgufHeader, architecture: str) -> int:
    """Return the rows of the embedding, which may be padded above the tokenizer's size."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is not None and embedding.shape:
        return embedding.shape[0]
    return int(header.metadata.get(f"{architecture}.vocab_size", len(header.metadata.get("tokenizer.ggml.tokens", []))))


def _add_rotary(header: GgufHeader, architecture: str, fields: dict[str, Any]) -> None:
    metadata = header.metadata
    heads, hidden = fields.get("num_attention_heads"), fields.get("hidden_size")
    rotated = metadata.get(f"{architecture}.rope.dimension_count")
    head_dim = fields.get("head_dim") or (hidden // heads if heads and hidden else None)
    if rotated and head_dim and rotated != head_dim:
        fields["partial_rotary_factor"] = rotated / head_dim
    kind = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind != "none":
        given = {name: metadata.get(f"{architecture}.{key}") for key, name in _SCALING.items()}
        scaling = {name: shortest(v) if isinstance(v, float) else v for name, v in given.items() if v is not None}
        fields["rope_scaling"] = {"rope_type": kind, **scaling}
    elif ROTARY_FACTORS in header.tensors:
        fields["rope_scaling"] = _llama3_scaling(header, fields)


def _llama3_scaling(header: GgufHeader, fields: dict[str, Any]) -> dict[str, Any]:
    """Find the formula behind the table of factors, and prove it.

    llama.cpp's converter stores one factor per frequency: 1 for short waves, ``factor`` for long ones, and between
    them a blend. All published models use the bounds below; another table is refused.

    Source: Llama 3.1 model card, ``rope_scaling`` of type llama3.
    """
    tensor = header.tensors[ROTARY_FACTORS]
    count = math.prod(tensor.shape)
    offset = header.data_start + tensor.offset
    if tensor.type_id == 0 and 0 < count * 4 <= header.file_size - offset:
        table = np.fromfile(header.path, "<f4", count, offset=offset)
        scaling = {"rope_type": "llama3", "factor": float(f"{table.max():.5g}"), "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
        if np.allclose(table, _llama3_factors(fields.get("rope_theta", 10000.0), count, scaling), rtol=1e-4):
            return scaling
    raise _refused(header, ROTARY_FACTORS, None, "holds rotary factors that follow no known formula")


def _llama3_factors(base: float, count: int, scaling: dict[str, Any]) -> np.ndarray:
    """Return what each rotary frequency is divided by."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelengths = 2 * math.pi * base ** (np.arange(count) / count)
    turns = scaling["original_max_position_embeddings"] / wavelengths
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: np.ndarray = 1.0 / ((1.0 - blend) / scaling["factor"] + blend)
    return factors
