"""The plain data that a family states about itself. Nothing here imports Paddle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    import numpy as np

    from ..data.tokenizer import Tokenizer

API_VERSION = (1, 0)
"""Of the plugin contract: a plugin with another major number is refused, one with a newer minor number is loaded
with a warning."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """The shape of one model; each family derives its own from it. The core reads only the fields below."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; equal to ``num_heads`` without grouped-query attention."""
    head_dim: int
    ffn_size: int
    """Width of one branch of the feed-forward part."""
    max_positions: int
    """Longest sequence that the positions were made for, in tokens."""
    tie_embeddings: bool = False
    """The output head is the transposed input embedding."""
    init_std: float = 0.02
    """Standard deviation of freshly initialised matrices."""

    @property
    def drops_activations(self) -> bool:
        """Whether training sets activations to 0 at random: a field that ends in ``dropout`` is above 0."""
        return any(getattr(self, each.name) for each in fields(self) if each.name.endswith("dropout"))

    prefix_lm: ClassVar[bool] = False
    """The prompt of a sample sees itself both ways (prefix language model)."""

    @classmethod
    @abstractmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read a ``config.json``, in Hugging Face's or PaddleNLP's spelling.

        Raises:
            RefusedError: a field that changes the numbers is missing, malformed, or asks for what is not supported.
        """

    @abstractmethod
    def to_fields(self) -> dict[str, Any]:
        """Return the ``config.json`` of a Hugging Face directory, ``model_type`` and ``architectures`` included."""

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        """Return the shape of a new model for texts of ``tokenizer``; a family whose shape holds token ids asks it.

        ``vocab_size`` has room for the tokenizer's ids already.
        """
        return self

    def positions(self, ids_BS: np.ndarray, segments_BS: np.ndarray, prefix_BS: np.ndarray | None) -> np.ndarray:
        """Number the tokens of each packed sample from 0; padding gets 0.

        Args:
            ids_BS: token ids.
            segments_BS: 0 for padding, k > 0 for the k-th sample of the row.
            prefix_BS: True for tokens of a prompt; only prefix language models look at it.

        Returns:
            int64 [B, S]; a family with two-dimensional positions returns [B, 2, S].
        """
        import numpy as np  # not at the top: the command's help and refusals do without it

        columns = np.arange(segments_BS.shape[1])
        starts = np.ones_like(segments_BS, dtype=bool)
        starts[:, 1:] = segments_BS[:, 1:] != segments_BS[:, :-1]
        first = np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
        return np.where(segments_BS > 0, columns - first, 0).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyCard:
    """Who a family is: the one hook result that is read before anything else."""

    name: str
    """What ``--family`` takes; equal to the entry point's name."""
    api_version: tuple[int, int]
    """The ``API_VERSION`` that the plugin was written for."""
    config_class: type[ModelConfig]
    model_types: tuple[str, ...]
    """Values of ``model_type`` in a ``config.json`` that this family answers for."""
    architectures: tuple[str, ...]
    """Values in ``architectures`` of a ``config.json`` that this family answers for (Hugging Face, PaddleNLP)."""
    gguf_architectures: tuple[str, ...] = ()
    """Values of ``general.architecture`` in a GGUF file that this family answers for."""
    telling_fields: tuple[str, ...] = ()
    """Keys that every ``config.json`` of this family has, and that tell it from a family with the same ``model_type``
    and ``architectures``. Looked at only where several families answer."""
    sizes: Mapping[str, ModelConfig]
    """Variants by name; ``tiny`` is required and runs in every test in well under a second."""
    lora_targets: tuple[str, ...]
    """Last name components of the linear layers that LoRA adapts by default (``q_proj``)."""


Task = Literal[
    "data", "pretrain", "sft", "lora", "prefix_tuning", "dpo", "evaluate", "generate", "chat",
    "ptq", "gptq", "export", "merge_lora", "merge_shards", "convert", "serve",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Support:
    """Whether one feature works for one variant, and why not."""

    support: Literal["yes", "no", "untested"]
    """``untested`` is for what is written but cannot be run without a GPU."""
    reason: str = ""
    """Required unless ``yes``: what stands in the way, in one sentence without a full stop."""
    proof: str = ""
    """Required for ``yes``: the test that ran, as pytest names it (``tests/…::test_…``)."""


@dataclass(frozen=True, slots=True)
class ShardingRule:
    """How the parameters that match ``pattern`` are split over tensor-parallel ranks.

    ``column`` splits the last axis (and the bias), ``row`` axis 0 (its bias is replicated by a rule of its own),
    ``vocab`` the rows of an embedding, ``replicate`` nothing.
    """

    pattern: str
    """Parameter name; ``*`` stands for a layer number. Every parameter is covered by exactly one rule."""
    kind: Literal["column", "row", "vocab", "replicate"]
    layout: Literal["plain", "q|k|v", "per_head", "gate|up", "kv_groups"] = "plain"
    """What lies side by side on the split axis: one matrix; three (q, k, v); q, k, v of each head in turn; two;
    or key/value heads, which are replicated where the degree exceeds their number."""
    partial: bool = False
    """Of ``replicate``: what the parameter is applied to is split, or what it makes goes into a split head directly
    (norms of single heads; a projection before the head). Each rank then sees a summand of its gradient."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the model that a pipeline stage may begin or end with, in the order of the forward pass.

    The first piece takes token ids and positions, the last one returns logits; between pieces the hidden states
    [B, S, H] pass, and every piece may be given the batch's positions and mask.
    """

    name: str
    """``embed``, ``blocks.0`` …, ``finish``, ``head``: attributes of ``CausalLM``."""
    parameters: tuple[str, ...]
    """Name prefixes of its parameters; each parameter belongs to exactly one piece."""
    shares: str = ""
    """Name prefix of the parameters of another piece that it uses as well (a tied head: ``embed_tokens.``)."""


@dataclass(frozen=True, slots=True)
class QuantGroup:
    """Linear layers that read the same input, and the norm before them that a smoothing scale can be folded into."""

    linears: tuple[str, ...]
    """Layer names; ``*`` stands for a layer number. Every quantizable linear is in exactly one group."""
    norm: str = ""
    """Name of the norm that feeds them; empty where none does (the output projection of attention), or where it feeds
    the residual stream as well."""
    feeder: str = ""
    """Name of the linear whose outputs reach their inputs in proportion, channel by channel, so that its columns can
    be scaled instead of the inputs: values before the output projection (heads of values may be shared by query
    heads), the branch without activation before the second matrix of a gated feed-forward part."""


Layout = Literal["hf", "paddlenlp", "gguf"]
"""A foreign naming of weights: Hugging Face model directories, PaddleNLP ``.pdparams``, GGUF."""


@dataclass(frozen=True, slots=True)
class WeightRule:
    """Our parameters and the foreign tensors that hold them; ``{i}`` stands for the layer number.

    One of ``ours`` or ``theirs`` may have several names: ``concat`` joins along ``axis`` of *our* layout after the
    transposition, in the order given. Applied in both directions.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    transpose: bool = False
    """Foreign [out, in] against our [in, out]."""
    axis: int = -1
    """Where fused tensors are cut, counted in our layout."""
    sizes: tuple[int, ...] = ()
    """Lengths of the cuts along ``axis``; empty means equal parts."""
    interleave: tuple[int, ...] = ()
    """Foreign order along ``axis`` is (heads, parts, head_dim) where ours is (parts, heads, head_dim):
    ``(heads, parts)``. Empty where the orders agree."""
    rank_interleave: tuple[int, ...] = ()
    """``interleave`` of PaddleNLP's files of single tensor-parallel ranks, where it differs from that of the file of
    the whole model."""
    permute_rotary: tuple[int, ...] = ()
    """GGUF files of some families store rotary halves interleaved: ``(heads,)`` undoes it. Empty elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightMap:
    """All weights of a variant in one foreign layout. A key that no rule takes is an error."""

    rules: tuple[WeightRule, ...]
    ignore: tuple[str, ...] = ()
    """Regular expressions (full match) of foreign keys that hold nothing to load, such as rotary tables."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Foreign keys that may be present as copies of another foreign key (a tied head): checked, not loaded."""
    optional_prefix: str = ""
    """Start of the foreign keys that a file may lack, because it was saved from the model without its head."""
