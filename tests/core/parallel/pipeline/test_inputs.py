from __future__ import annotations

from typing import Any

import numpy as np

from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.parallel.pipeline.inputs import StageInputs, lengthen
from llm_run.core.registry.manager import load_family


def batch(config: Any) -> Any:
    ids = np.arange(10, 15)
    sample = Sample(ids, ids + 1, np.array([1, 1, 1, 2, 2], np.int32), np.array([1, 0, 0, 1, 0], bool))
    return collate([sample], config, 0)


def test_rows_are_lengthened_by_padding_that_is_neither_seen_nor_learnt() -> None:
    config = load_family("glm").card.sizes["tiny"]  # two-dimensional positions
    short = batch(config)
    long = lengthen(short, 4)
    assert long.ids_BS.shape == (1, 8) and long.positions.shape == (1, 2, 8)
    for name in ("ids_BS", "labels_BS", "segments_BS", "prefix_BS", "positions"):
        assert (getattr(long, name)[..., :5] == getattr(short, name)).all()
    assert (long.labels_BS[:, 5:] == IGNORED).all() and not long.segments_BS[:, 5:].any()


def test_rows_that_divide_stay_as_they_are() -> None:
    given = batch(load_family("llama").card.sizes["tiny"])
    assert lengthen(given, 5) is given


def test_what_sections_read_is_made_once_and_dropped_with_the_last_section() -> None:
    family = load_family("llama")
    config = family.card.sizes["tiny"]
    inputs = StageInputs(family.build_model(config), [batch(config)], last=2)
    first, again = inputs.take(0, 0), inputs.take(2, 0)
    assert again[0] is first[0] and again[1] is first[1]
    assert inputs.take(0, 0)[0] is not first[0]


def test_tokens_come_after_a_prefix_which_each_section_computes_anew() -> None:
    family = load_family("llama")
    config = family.card.sizes["tiny"]
    model = apply_prefix(family.build_model(config), PrefixSettings(num_tokens=3))
    inputs = StageInputs(model, [batch(config)], last=2)
    (first, _, cache), (again, _, other) = inputs.take(0, 0), inputs.take(2, 0)
    assert first is again and first.mask.num_shared == 3
    assert first.positions.numpy().min() == 3
    assert cache is not None and other is not None and cache is not other and cache.length == 3
