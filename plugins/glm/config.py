"""The shape of a GLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.field_reader import FieldReader

if TYPE_CHECKING:
    import numpy as np

    from llm_run.core.data.tokenizer import Tokenizer

SOP, BLANKS = "<|startofpiece|>", ("[MASK]", "[sMASK]", "[gMASK]")
SPECIAL_IDS: dict[int, tuple[int, tuple[int, int, int]]] = {
    # vocab_size: <|startofpiece|>, ([MASK], [sMASK], [gMASK]). Published config.json files do not hold them.
    # Source: THUDM/SwissArmyTransformer, sat/tokenization/glm/tokenization.py
    50048: (50006, (50003, 50008, 50009)),
    50304: (50257, (50260, 50264, 50263)),
    30592: (30522, (103, 30525, 30524)),
}


@dataclass(frozen=True, kw_only=True)
class GlmConfig(ModelConfig):
    """A GLM."""

    norm_eps: float
    sop_id: int
    """``<|startofpiece|>``: opens the text that fills a blank. The context ends before it."""
    blank_ids: tuple[int, ...]
    """``[MASK]``, ``[sMASK]``, ``[gMASK]``: a blank of some words, of a sentence, of all that follows."""
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
    """Share of values set to 0 in training: of the embeddings, of attention weights, of what a block adds."""

    prefix_lm: ClassVar[bool] = True

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> GlmConfig:
        read = FieldReader(fields)
        for key in ("num_key_value_heads", "rope_parameters", "rope_theta", "partial_rotary_factor"):
            if fields.get(key) is not None:
                read.refuse(key, fields[key], "is of GLM-4 or later, which is another network")
        read.only("block_position_encoding", allowed=(True,), remedy="A GLM has two-dimensional positions.")
        read.only("relative_encoding", allowed=(False,), remedy="Relative positions are of no published GLM.")
        # attention_scale divides queries and keys and multiplies the scores again: nothing to read. pool_token,
        # spell_func and spell_length are of prompt tuning.
        hidden_size = read.integer("hidden_size")
        num_heads = read.integer("num_attention_heads")
        if hidden_size % num_heads:
            read.refuse("num_attention_heads", num_heads, f"does not divide hidden_size ({hidden_size})")
        vocab_size = read.integer("vocab_size")
        sop_id, blank_ids = _special_ids(fields, read, vocab_size)
        config: dict[str, Any] = dict(
            num_layers=read.integer("num_layers", "num_hidden_layers"),
            max_positions=read.integer("max_sequence_length"),
            norm_eps=read.number("layernorm_epsilon", default=1e-5),
            init_std=read.number("initializer_range", default=0.02),
            **{f"{part}_dropout": read.share(f"{part}_dropout_prob", default=0.0) for part in DROPOUTS},
        )
        read.check()
        return cls(
            vocab_size=vocab_size, hidden_size=hidden_size, num_heads=num_heads, num_kv_heads=num_heads,
            head_dim=hidden_size // num_heads, ffn_size=4 * hidden_size, tie_embeddings=True, sop_id=sop_id,
            blank_ids=blank_ids, **config,
        )  # fmt: skip

    def to_fields(self) -> dict[str, Any]:
        return {
            "model_type": "glm",
            "architectures": ["GLMForConditionalGeneration"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "max_sequence_length": self.max_positions,
            "layernorm_epsilon": self.norm_eps,
            "initializer_range": self.init_std,
            "block_position_encoding": True,
            "relative_encoding": False,
            "output_predict": True,
            "attention_scale": 1.0,
            **{f"{part}_dropout_prob": getattr(self, f"{part}_dropout") for part in DROPOUTS},
            "sop_token_id": self.sop_id,
            "blank_token_ids": list(self.blank_ids),
        }

    def with_tokenizer(self, tokenizer: Tokenizer) -> GlmConfig:
        sop_id, *blank_ids = (tokenizer.token_id(token) for token in (SOP, *BLANKS))
        known = tuple(number for number in blank_ids if number is not None)
        return self if sop_id is None or not known else replace(self, sop_id=sop_id, blank_ids=known)

    def positions(self, ids_BS: np.ndarray, segments_BS: np.ndarray, prefix_BS: np.ndarray | None) -> np.ndarray:
        from llm_run.core.ops.block_positions import block_positions  # imports numpy

        blanks = (self.blank_ids,)
        return block_positions(ids_BS, segments_BS, prefix_BS, opening_id=self.sop_id, blank_ids=blanks)


DROPOUTS = ("embedding", "attention", "output")


def _special_ids(fields: Mapping[str, Any], read: FieldReader, vocab_size: int) -> tuple[int, tuple[int, ...]]:
    """Return ``<|startofpiece|>`` and the blanks: as the file says, or as the vocabulary's size tells."""
    sop_id, blank_ids = SPECIAL_IDS.get(vocab_size, (None, None))
    ids = [fields.get("sop_token_id") or sop_id, *(fields.get("blank_token_ids") or blank_ids or (None,))]
    if any(type(number) is not int or not 0 <= number < vocab_size for number in ids):
        remedy = "Add sop_token_id and blank_token_ids, a list of the ids of [MASK], [sMASK] and [gMASK]."
        read.refuse("sop_token_id, blank_token_ids", ids, f"are not ids of a vocabulary of {vocab_size}", remedy)
        return 0, ()
    return ids[0], tuple(ids[1:])


def _glm(vocab: int, hidden: int, layers: int, heads: int, positions: int, **more: Any) -> GlmConfig:
    sop_id, blank_ids = SPECIAL_IDS[vocab]
    config: dict[str, Any] = dict(
        sop_id=sop_id, blank_ids=blank_ids, embedding_dropout=0.1, attention_dropout=0.1, output_dropout=0.1
    )
    return GlmConfig(
        vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, ffn_size=4 * hidden, max_positions=positions, tie_embeddings=True, norm_eps=1e-5,
        **{**config, **more},
    )  # fmt: skip


SIZES: dict[str, GlmConfig] = {
    "tiny": GlmConfig(
        vocab_size=512, hidden_size=64, num_layers=4, num_heads=4, num_kv_heads=4, head_dim=16, ffn_size=256,
        max_positions=512, tie_embeddings=True, norm_eps=1e-5, sop_id=506, blank_ids=(503, 508, 509),
    ),
    # github.com/THUDM/GLM, README and config/; huggingface.co/THUDM/glm-10b-chinese and its siblings
    "glm-large-chinese": _glm(50048, 1024, 24, 16, 1024),
    "glm-10b-chinese": _glm(50048, 4096, 48, 64, 1024),
    "glm-515m": _glm(30592, 1152, 30, 18, 512),
    "glm-2b": _glm(50304, 2048, 36, 32, 1024),
    "glm-10b": _glm(50304, 4096, 48, 64, 1024),
}  # fmt: skip
