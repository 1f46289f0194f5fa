"""The plan of quantizing runs, against what such a run really makes and keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.convert.logical import ModelTensors
from llm_run.core.convert.save import save_model_directory
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.estimate.quantizing import QuantizingLayout
from llm_run.core.estimate.shapes import find_shapes
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.quant.plan import choose_method
from llm_run.core.quant.quantize import quantize_by_blocks
from llm_run.core.registry.manager import load_family

WAYS = {
    "gptq": ("gptq", {}),
    "awq": ("ptq", {"quant_type": "WINT4", "awq": True}),
    "wint8": ("ptq", {"quant_type": "WINT8"}),
    "w8a8": ("ptq", {"smooth": True}),
}
OTHERS = {"max_length": 64, "src_length": 32, "per_device_train_batch_size": 2, "max_evaluate_steps": 4}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    family = load_family("llama")
    model = family.build_model(family.card.sizes["tiny"])
    save_model_directory(model, family, model.config, None, folder)
    return folder


@pytest.fixture
def prepared(directory: Path) -> Callable[..., Any]:
    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.request import prepare

    (directory / "quant.json").write_text(json.dumps({"text": "one"}))

    def make(task: str, **options: Any) -> Any:
        options |= {"model_name_or_path": directory, "dataset_name_or_path": directory, "output_dir": directory / "out"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return prepare(resolve(parse(["--task", task, *words]))[0])[0]

    return make


@pytest.mark.parametrize("way", WAYS)
def test_what_ranks_keep_is_what_a_run_makes(prepared: Callable[..., Any], way: str) -> None:
    task, options = WAYS[way]
    run = prepared(task, **options, **OTHERS)
    config, shapes = run.model_config, find_shapes(run)
    ids = np.arange(3, 40)
    sample = Sample(ids, np.append(ids[1:], IGNORED), np.ones(37, dtype=np.int32), np.zeros(37, dtype=bool))
    batches = [collate([sample], config, 0)]
    in_sizes = [config.hidden_size, config.ffn_size]
    made = quantize_by_blocks(
        run.family, config, ModelTensors(run.family.build_model(config)), choose_method(run, in_sizes),
        calibration=batches, evaluation=batches,
    )  # fmt: skip
    floats = sum(4 * math.prod(parameter.shape) for parameter in made.model.parameters())
    expected = floats + sum(record.num_bytes for record in made.layers)
    for size in (1, 2, 3):
        layout = QuantizingLayout(run, shapes, ParallelPlan(mp=size), base=0)
        ranks = [layout.rank(rank) for rank in range(size)]
        assert sum(rank.held_bytes for rank in ranks) == expected
        assert sorted(block for rank in ranks for block in rank.share.blocks) == list(range(config.num_layers))
        assert sum(rank.share.computed for rank in ranks) == sum(map(math.prod, shapes.model.values()))


def test_more_ranks_need_less_memory_each(prepared: Callable[..., Any]) -> None:
    run = prepared("gptq", gptq_step=64, **OTHERS)
    shapes = find_shapes(run)
    peaks = [
        [layout.rank(rank).peak.total for rank in range(size)]
        for size in (1, 2)
        for layout in [QuantizingLayout(run, shapes, ParallelPlan(mp=size), base=0)]
    ]
    assert max(peaks[1]) < peaks[0][0]
