"""Who sees whom in attention, as a description: no S x S tensor is made unless the plain kernel needs one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddle import Tensor


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Causal attention within segments, with prompts that see themselves both ways where ``prefix_BT`` says so.

    Queries are the last S of the T keys. Query i sees key j where both are in the same segment and j <= i, or j is
    in the segment's prefix. Padding (segment 0) sees only itself, so that no row of the softmax is empty; its
    outputs mean nothing. ``AttentionMask()`` is plain causal attention over full rows.
    """

    segments_BT: Tensor | None = None
    """int32: 0 for padding, k > 0 for the k-th packed sample of the row. ``None``: one segment, no padding."""
    prefix_BT: Tensor | None = None
    """bool: True for tokens of a prompt that sees itself both ways. ``None``: none."""
