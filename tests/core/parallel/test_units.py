from __future__ import annotations

from llm_run.core.parallel.units import buckets, divide, even_rows


def test_buckets_keep_the_order_and_their_bound_but_for_what_is_larger_alone() -> None:
    sizes = {"a": 3, "b": 4, "c": 3, "d": 20, "e": 1, "f": 9}
    assert list(buckets(sizes, most=10)) == [["a", "b", "c"], ["d"], ["e", "f"]]
    assert list(buckets({}, most=10)) == []


def test_a_matrix_of_the_vocabulary_is_a_unit_of_its_own_and_a_block_another() -> None:
    shapes = {
        "embed_tokens.weight": (64, 8), "blocks.0.up.weight": (8, 64), "blocks.10.up.weight": (8, 64),
        "blocks.2.up.weight": (8, 64), "blocks.0.norm.weight": (8,), "norm.weight": (8,), "lm_head.weight": (8, 64),
    }  # fmt: skip
    found = divide(shapes, 64)
    assert [(unit.kind, unit.names) for unit in found] == [
        ("others", ("norm.weight",)),
        ("vocabulary", ("embed_tokens.weight",)),
        ("vocabulary", ("lm_head.weight",)),
        ("block", ("blocks.0.up.weight", "blocks.0.norm.weight")),
        ("block", ("blocks.2.up.weight",)),
        ("block", ("blocks.10.up.weight",)),
    ]
    assert [unit.block for unit in found if unit.kind == "block"] == [0, 2, 10]


def test_rows_are_shared_out_evenly_and_completely() -> None:
    assert even_rows(10, 4) == [(0, 2), (2, 5), (5, 7), (7, 10)]
    assert even_rows(1, 3) == [(0, 0), (0, 0), (0, 1)]
