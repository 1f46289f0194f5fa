"""A family's quantizable layers with their numbers filled in, and what may be folded into what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..registry.facts import ModelConfig, QuantGroup

HEAD = "lm_head"
"""What families call the head."""


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Linear layers of one block that read the same input."""

    linears: tuple[str, ...]
    """Names in the model."""
    norm: str
    """The norm that makes their input and feeds nothing else; empty where there is none."""
    feeder: str
    """The linear layer whose outputs reach their inputs in proportion, channel by channel; empty where none does."""

    @property
    def first(self) -> str:
        """The layer that is asked for the common input."""
        return self.linears[0]


def groups_of_block(groups: Sequence[QuantGroup], block: int) -> list[LayerGroup]:
    """Return the groups of a block in the order of the forward pass; layers outside of blocks are left out."""

    def named(pattern: str) -> str:
        return pattern.replace("*", str(block))

    return [
        LayerGroup(tuple(map(named, group.linears)), named(group.norm), named(group.feeder))
        for group in groups
        if "*" in group.linears[0]
    ]


def head_group(groups: Sequence[QuantGroup]) -> LayerGroup | None:
    """Return the head, where the family states that it may be quantized. Its inputs are not scaled: the final norm
    may feed more than it."""
    return next((LayerGroup(group.linears, "", "") for group in groups if group.linears == (HEAD,)), None)


def feeding_channels(config: ModelConfig, in_size: int, feeder_size: int) -> np.ndarray:
    """Return, for each input, the output of the feeder that it comes from, int64 [I].

    They are as many, or several query heads share one head of values.
    """
    channels_I = np.arange(in_size)
    if feeder_size == in_size:
        return channels_I
    copies = in_size // feeder_size
    assert copies * feeder_size == in_size, f"{feeder_size} channels do not feed {in_size} inputs evenly"
    heads_I, places_I = np.divmod(channels_I, config.head_dim)
    return heads_I // copies * config.head_dim + places_I


def tied_maximum(values_I: np.ndarray, channels_I: np.ndarray) -> np.ndarray:
    """Give inputs that come from the same channel the largest value among them."""
    largest = np.full(int(channels_I.max()) + 1, -np.inf, dtype=values_I.dtype)
    np.maximum.at(largest, channels_I, values_I)
    tied: np.ndarray = largest[channels_I]
    return tied
