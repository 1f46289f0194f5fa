"""From a family's sharding map to what each tensor-parallel rank holds. Imports no Paddle."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...errors import PluginError
from ..plan import padded_vocabulary
from ..slices import Part

if TYPE_CHECKING:
    from ...registry.facts import ModelConfig, ShardingRule

Span = tuple[int, int]
Rules = Sequence["ShardingRule"]


def find_rules(names: Iterable[str], rules: Rules) -> dict[str, ShardingRule]:
    """Return the rule of each parameter.

    Raises:
        PluginError: a parameter has no rule, or more than one.
    """
    patterns = [(re.compile(re.escape(rule.pattern).replace(r"\*", r"\d+")), rule) for rule in rules]
    found = {}
    for name in names:
        matching = [rule for pattern, rule in patterns if pattern.fullmatch(name)]
        if len(matching) != 1:
            raise PluginError(f"the family's sharding map has {len(matching)} rules for parameter {name}, not one.")
        found[name] = matching[0]
    return found


def find_parts(
    shapes: Mapping[str, Sequence[int]], config: ModelConfig, rules: Rules, *, degree: int, index: int
) -> dict[str, Part]:
    """Return what rank ``index`` of ``degree`` tensor-parallel ranks holds of each parameter.

    Args:
        shapes: of the logical parameters, by name.
        config: of the model, which says how many heads there are.
        rules: the family's sharding map.
        degree: ranks that share each matrix; checked against the model before a run starts.
        index: the rank's place among them.

    Raises:
        PluginError: the map does not cover the parameters, or does not fit them.
    """
    chosen = find_rules(shapes, rules)
    return {name: _part(name, tuple(shape), chosen[name], config, degree, index) for name, shape in shapes.items()}


def splits_head(config: ModelConfig, rules: Rules) -> bool:
    """Say whether each rank computes the logits of its own tokens only."""
    kind = "vocab" if config.tie_embeddings else "column"
    return any(rule.kind == kind and not in_block(rule.pattern) for rule in rules)


def in_block(name: str) -> bool:
    """Say whether a parameter (or pattern of some) belongs to a block."""
    return name.startswith("blocks.")


def even_span(length: int, degree: int, index: int) -> Span:
    """Return rank ``index``'s share of a dimension; where it does not divide, the last rank has less."""
    each = padded_vocabulary(length, degree) // degree
    return min(index * each, length), min((index + 1) * each, length)


def kv_copies(config: ModelConfig, degree: int) -> int:
    """Return how many ranks hold the same key/value head.

    Raises:
        PluginError: the heads neither divide among the ranks nor the ranks among the heads.
    """
    heads = config.num_kv_heads
    if heads % degree == 0:
        return 1
    if degree % heads:
        raise PluginError(f"{heads} key/value heads do not split over {degree} tensor-parallel ranks.")
    return degree // heads


def _part(name: str, shape: tuple[int, ...], rule: ShardingRule, config: ModelConfig, degree: int, index: int) -> Part:
    if rule.kind == "replicate":
        return Part.whole(shape, is_owner=index == 0)
    dim = -1 if rule.kind == "column" else 0
    spans, is_owner = _spans(name, shape[dim], rule, config, degree, index)
    return Part.along(shape, dim, spans, is_owner=is_owner)


def _spans(
    name: str, length: int, rule: ShardingRule, config: ModelConfig, degree: int, index: int
) -> tuple[list[Span], bool]:
    """Return the rank's spans of the split dimension, and whether it owns what other ranks hold as well."""
    if rule.layout == "kv_groups":
        copies = kv_copies(config, degree)
        return [even_span(length, degree // copies, index // copies)], index % copies == 0
    if rule.layout == "gate|up":
        half = even_span(length // 2, degree, index)
        return [half, _moved(half, length // 2)], True
    if rule.layout == "q|k|v":
        query, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        if length != query + 2 * kv or config.num_kv_heads % degree:
            raise PluginError(f"parameter {name}: its layout q|k|v does not split over {degree} tensor-parallel ranks.")
        spans = ((0, query), (query, kv), (query + kv, kv))
        return [_moved(even_span(size, degree, index), start) for start, size in spans], True
    return [even_span(length, degree, index)], True


def _moved(span: Span, start: int) -> Span:
    return start + span[0], start + span[1]
