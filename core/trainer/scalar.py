"""A number out of a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle import Tensor


def to_float(tensor: Tensor) -> float:
    """Return the value of a tensor of one element; waits until it is computed."""
    value: Any = tensor.item()
    return float(value)
