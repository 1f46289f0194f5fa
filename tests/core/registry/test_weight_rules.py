"""Weight rules of whole layers."""

from __future__ import annotations

from llm_run.core.registry.facts import WeightRule
from llm_run.core.registry.weight_rules import BOTH, column_of, fused, renamed


def test_layers_with_other_names_keep_their_parts() -> None:
    rules = renamed({"up": "fc1"}, ours="blocks.{i}.", theirs="h.{i}.", parts=BOTH, transpose=True)
    assert list(rules) == [
        WeightRule(("blocks.{i}.up.weight",), ("h.{i}.fc1.weight",), transpose=True),
        WeightRule(("blocks.{i}.up.bias",), ("h.{i}.fc1.bias",)),
    ]


def test_layers_have_a_weight_alone_unless_said_otherwise() -> None:
    assert list(renamed({"norm": "ln_f"})) == [WeightRule(("norm.weight",), ("ln_f.weight",))]


def test_fused_layers_are_cut_in_every_part() -> None:
    rules = fused(["q", "k"], "qk", parts=BOTH, transpose=True, sizes=(8, 4), interleave=(2, 2))
    assert list(rules) == [
        WeightRule(("q.weight", "k.weight"), ("qk.weight",), transpose=True, sizes=(8, 4), interleave=(2, 2)),
        WeightRule(("q.bias", "k.bias"), ("qk.bias",), sizes=(8, 4), interleave=(2, 2)),
    ]


def test_a_table_has_a_column_for_each_layout() -> None:
    assert column_of({"up": ("fc1", "linear1")}, 1) == {"up": "linear1"}
