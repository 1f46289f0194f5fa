"""What a model does otherwise when each rank computes some of a row's tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import paddle

from ...causal_lm import CausalLM
from ...ops.mask import AttentionMask
from ..collectives import split
from ..differentiable import reduce_then_copy
from ..tensor.model import lengthened
from .attention import SEQUENCE_DIM, SharedRowMask

if TYPE_CHECKING:
    from paddle import Tensor

    from ...causal_lm import BlockContext, Cache
    from ..groups import Group
    from ..mesh import Mesh


@dataclass(frozen=True, slots=True)
class RowShare:
    """Which tokens of each row a rank computes: as many as every other rank of the group, in the group's order."""

    group: Group
    """The ranks that share rows."""
    multiple: int
    """What the length of a row must be a multiple of; rows are filled up."""


class SharedRowsCausalLM(CausalLM):
    """Stands before a family's class: it is given whole rows, and returns the hidden states of this rank's tokens.

    ``embed`` and ``context`` take rows whose length is a multiple of ``row_share.multiple``, and cut them; the blocks,
    ``finish`` and ``head`` go on with what they are given. Only attention talks to the other ranks. Positions, rotary
    tables and mask are made for the whole row first: some families look at the whole of it for them.
    """

    row_share: RowShare

    def forward(
        self, input_ids_BS: Tensor, positions: Tensor, mask: AttentionMask, cache: Cache | None = None
    ) -> Tensor:
        assert cache is None, "tokens that were read before belong to no rank's share of the row"
        missing = -input_ids_BS.shape[1] % self.row_share.multiple
        return super().forward(*lengthened(input_ids_BS, positions, mask, missing))

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        own = (split(x, self.row_share.group, dim=-1) for x in (input_ids_BS, positions))
        return super().embed(*own)  # type: ignore[safe-super]  # the family's

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        whole, group = super().context(positions, mask), self.row_share.group  # type: ignore[safe-super]
        scale_BS = whole.query_scale_BS
        assert isinstance(whole.mask, AttentionMask), "only rows of samples are trained on"
        return replace(
            whole,
            mask=SharedRowMask(whole.mask, group),
            rotary=tuple(split(table_BSR, group, dim=SEQUENCE_DIM) for table_BSR in whole.rotary),
            query_scale_BS=None if scale_BS is None else split(scale_BS, group, dim=SEQUENCE_DIM),
        )


def share_rows(model: CausalLM, mesh: Mesh) -> CausalLM:
    """Let the ranks of the ``sep`` axis share the rows that a model is given, and return the model.

    Parameters, and what they are called, stay as they are: every rank has all that it had.

    Args:
        model: as the family built it, or a tensor-parallel rank's or a stage's part of it; changed in place.
        mesh: of the run. Without ranks on the axis nothing changes.
    """
    group, plan = mesh.group("sep"), mesh.plan
    if group.is_alone:
        return model
    family = type(model)
    model.__class__ = type(f"SharedRows{family.__name__}", (SharedRowsCausalLM, family), {})
    assert isinstance(model, SharedRowsCausalLM)
    model.row_share = RowShare(group, group.size * (plan.mp if plan.sequence_parallel else 1))
    return model


@contextlib.contextmanager
def whole_rows(model: CausalLM) -> Iterator[None]:
    """Let each rank compute rows of its own with a model, as its family built it: to answer, token by token."""
    shared = type(model)
    if not issubclass(shared, SharedRowsCausalLM):
        yield
        return
    model.__class__ = next(base for base in shared.__bases__ if base is not SharedRowsCausalLM)
    try:
        yield
    finally:
        model.__class__ = shared


def row_share_of(model: CausalLM) -> RowShare | None:
    """Return which tokens of each row a model computes; ``None`` for all of them."""
    return model.row_share if isinstance(model, SharedRowsCausalLM) else None


def own_tokens(model: CausalLM, x_BS: Tensor, *, fill: float) -> Tensor:
    """Return the part of whole rows that belongs to the hidden states that a model returns.

    Args:
        model: shares rows with other ranks, or computes all of them.
        x_BS: a value for each token, [B, S] or [B, S, ...].
        fill: value of the tokens that rows are filled up with.
    """
    share = row_share_of(model)
    if share is None:
        return x_BS
    missing = -x_BS.shape[1] % share.multiple
    if missing:
        more = paddle.full([x_BS.shape[0], missing, *x_BS.shape[2:]], fill, dtype=x_BS.dtype)
        x_BS = paddle.concat([x_BS, more], axis=1)
    return split(x_BS, share.group, dim=1)


def sum_of_rows(model: CausalLM, sums: Tensor) -> Tensor:
    """Return the sums over whole rows of what was summed over the tokens of ``own_tokens``, the same on every rank."""
    share = row_share_of(model)
    return sums if share is None else reduce_then_copy(sums, share.group)


def counted_once(model: CausalLM, loss: Tensor) -> Tensor:
    """Make losses that each rank has computed of whole rows add up to that of one rank; gradients stay as they are."""
    share = row_share_of(model)
    return loss if share is None or share.group.index == 0 else loss - loss.detach()
