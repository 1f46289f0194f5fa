"""The shape that most families have: read from and written to a ``config.json``, and as a row of a table of sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .field_reader import REQUIRED

if TYPE_CHECKING:
    from .facts import ModelConfig
    from .field_reader import FieldReader


def read_shape(
    read: FieldReader, *, positions: tuple[str, ...] = ("max_position_embeddings",), default_positions: int = REQUIRED
) -> dict[str, Any]:
    """Return the fields of a ``ModelConfig`` in Hugging Face's usual spelling, or in the older one of GPT-2.

    Left out are ``num_kv_heads`` and ``head_dim``: see ``read_grouped_heads``, or say them.

    Args:
        read: gathers what is wrong.
        positions: names of the longest sequence.
        default_positions: what it is where the file does not say it.
    """
    return dict(
        vocab_size=read.integer("vocab_size"),
        hidden_size=read.integer("hidden_size", "n_embd"),
        num_layers=read.integer("num_hidden_layers", "n_layer"),
        num_heads=read.integer("num_attention_heads", "n_head"),
        ffn_size=read.integer("intermediate_size", "n_inner"),
        max_positions=read.integer(*positions, default=default_positions),
        tie_embeddings=read.flag("tie_word_embeddings", default=False),
        init_std=read.number("initializer_range", default=0.02),
    )


def read_grouped_heads(read: FieldReader, shape: dict[str, Any], *, head_dim: int = 0) -> dict[str, Any]:
    """Return ``shape`` with ``num_kv_heads`` and ``head_dim``, which must fit to the rest of it.

    Args:
        read: gathers what is wrong.
        shape: from ``read_shape``.
        head_dim: what it is where the file does not say it; 0 for the hidden size divided by the heads.
    """
    hidden_size, num_heads = shape["hidden_size"], shape["num_heads"]
    num_kv_heads = read.integer("num_key_value_heads", default=num_heads)
    if num_heads % num_kv_heads:
        read.refuse("num_key_value_heads", num_kv_heads, f"does not divide num_attention_heads ({num_heads})")
    if not read.has("head_dim") and hidden_size % num_heads:
        read.refuse("num_attention_heads", num_heads, f"does not divide hidden_size ({hidden_size})")
    head_dim = read.integer("head_dim", default=head_dim or max(1, hidden_size // num_heads))
    return shape | {"num_kv_heads": num_kv_heads, "head_dim": head_dim}


def size_row(
    vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, positions: int, *, head_dim: int = 0
) -> dict[str, Any]:
    """Return the fields of a ``ModelConfig`` from a row of a table of sizes; see the fields for what they are.

    ``head_dim`` is the hidden size divided by the heads where it is not said.
    """
    return dict(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=kv_heads,
        head_dim=head_dim or hidden // heads, ffn_size=ffn, max_positions=positions,
    )  # fmt: skip


def usual_fields(config: ModelConfig) -> dict[str, Any]:
    """Return what ``read_shape`` reads, in Hugging Face's spelling; the family adds the rest."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }
