"""What a model does otherwise when its layers are split over ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import paddle

from ...causal_lm import CausalLM
from ...convert.logical import parameters
from ..differentiable import copy_then_reduce, gather_then_split, split_then_gather
from ..slices import Part
from .crossing import SEQUENCE_DIM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paddle import Tensor

    from ...causal_lm import Cache
    from ...ops.mask import AttentionMask
    from ..groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a model is split, as one rank sees it."""

    group: Group
    """The tensor-parallel ranks."""
    peers: Sequence[Mapping[str, Part]]
    """What each of these ranks holds, by parameter name."""
    sequence_parallel: bool
    """Between matrices each rank has its own tokens."""
    splits_head: bool
    """The head returns the logits of this rank's tokens of the vocabulary only."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """What this rank holds, by parameter name."""
        return self.peers[self.group.index]


class SplitCausalLM(CausalLM):
    """Stands before a family's class: the same methods, for layers that are split.

    ``embed`` and the blocks pass on [B, S, H], in sequence parallelism [B, S / ranks, H] of this rank's tokens.
    ``finish`` returns the hidden states of all tokens, the same on every rank, with or without it. The gradients
    that flow between these methods are whole, too.
    """

    split: Split

    def forward(
        self, input_ids_BS: Tensor, positions: Tensor, mask: AttentionMask, cache: Cache | None = None
    ) -> Tensor:
        missing = -input_ids_BS.shape[1] % self.split.group.size if self.split.sequence_parallel else 0
        if not missing:
            return super().forward(input_ids_BS, positions, mask, cache)
        length = input_ids_BS.shape[1]
        return super().forward(*lengthened(input_ids_BS, positions, mask, missing), cache)[:, :length]

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH = super().embed(input_ids_BS, positions)  # type: ignore[safe-super]  # the family's
        if not self.split.sequence_parallel:
            return hidden_BSH
        return split_then_gather(hidden_BSH, self.split.group, dim=SEQUENCE_DIM)

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        if self.split.sequence_parallel:
            hidden_BSH = gather_then_split(hidden_BSH, self.split.group, dim=SEQUENCE_DIM)
        return super().finish(hidden_BSH)  # type: ignore[safe-super]  # the family's

    def head(self, hidden_BSH: Tensor) -> Tensor:
        if self.split.splits_head:
            hidden_BSH = copy_then_reduce(hidden_BSH, self.split.group)
        return super().head(hidden_BSH)  # type: ignore[safe-super]  # the family's


def split_of(model: CausalLM) -> Split | None:
    """Return how a model is split; ``None`` for one that is whole."""
    return model.split if isinstance(model, SplitCausalLM) else None


def model_parts(model: CausalLM) -> dict[str, Part]:
    """Return what this rank holds of each logical parameter, by name; all of it where the model is not split."""
    split = split_of(model)
    if split is not None:
        return dict(split.parts)
    return {name: Part.whole(tuple(parameter.shape)) for name, parameter in parameters(model).items()}


def lengthened(
    input_ids_BS: Tensor, positions: Tensor, mask: AttentionMask, missing: int
) -> tuple[Tensor, Tensor, AttentionMask]:
    """Return what a model is called with, with ``missing`` tokens of padding at the end of the rows."""
    if not missing:
        return input_ids_BS, positions, mask
    segments, prefix = (None if x is None else _lengthen(x, missing) for x in (mask.segments_BT, mask.prefix_BT))
    padded = replace(mask, segments_BT=segments, prefix_BT=prefix)
    return _lengthen(input_ids_BS, missing), _lengthen(positions, missing), padded


def _lengthen(x: Tensor, missing: int) -> Tensor:
    """Append ``missing`` zeros to the last axis."""
    zeros = paddle.zeros([*x.shape[:-1], missing], dtype=x.dtype)
    return paddle.concat([x, zeros], axis=-1)
