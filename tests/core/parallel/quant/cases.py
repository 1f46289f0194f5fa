"""What every family is quantized by, by two ranks and by one process."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import LogicalTensors, ModelTensors, parameters
from llm_run.core.convert.save import ModelParts, write_model_directory
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.errors import RefusedError
from llm_run.core.quant.directory import ModelPacking, QuantizedTensors
from llm_run.core.quant.gptq import GptqSettings
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.head import UntiedTensors, with_own_head
from llm_run.core.quant.lending import lend, lent_layers
from llm_run.core.quant.methods import Awq, Gptq, Method, RoundToNearest
from llm_run.core.quant.plan import quantization_config
from llm_run.core.quant.quantize import Quantized, complete, quantize_by_blocks
from llm_run.core.quant.ranks import Ranks
from llm_run.core.quant.smooth import PiecewiseSearch
from llm_run.core.quant.w8a8 import W8A8, Shift, Smooth
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family

METHODS: dict[str, Method] = {
    "wint8": RoundToNearest(GridSpec(8)),
    "wint4": RoundToNearest(GridSpec(4, 8)),
    "awq": Awq(GridSpec(4, 8, symmetric=False)),
    "gptq": Gptq(GridSpec(4, 8), GptqSettings()),
    "w8a8": W8A8(Shift(all_linears=True), Smooth(all_linears=True), per_token=True, num_batches=3),
    "static": W8A8(
        Shift("ema", num_batches=3),
        Smooth(search=PiecewiseSearch(2), sampler="multi_step", all_linears=True, num_batches=1),
    ),
}
WITH_HEAD = "gptq"
"""Of the methods, the one that quantizes the head as well, where a family lets it."""
NUM_LAYERS = 3
BATCHES = 5
"""Of calibration: no multiple of the ranks."""


@dataclass(frozen=True)
class Case:
    """A model, and how it is quantized."""

    family: Family
    config: Any
    tensors: LogicalTensors
    method: Method
    with_head: bool


def case(name: str, method: str) -> Case:
    """Return one of the cases of a family, with weights and norms that make inputs unequal."""
    family = load_family(name)
    config: Any = replace(family.card.sizes["tiny"], num_layers=NUM_LAYERS)
    model = family.build_model(config)
    for each, parameter in parameters(model).items():
        random = np.random.default_rng(zlib.crc32(each.encode()))
        shape = list(parameter.shape)
        drawn = random.normal(0, 0.15, shape) if len(shape) > 1 else random.normal(0, 0.3, shape)
        is_scale = len(shape) == 1 and each.endswith("weight")
        fill(parameter, (np.exp(drawn) if is_scale else drawn).astype(np.float32))
    tensors: LogicalTensors = ModelTensors(model)
    with_head = method == WITH_HEAD
    if with_head:
        try:
            own = with_own_head(family, config)
        except RefusedError:
            with_head = False
        else:
            tensors = UntiedTensors(tensors) if config.tie_embeddings else tensors
            config = own
    return Case(family, config, tensors, METHODS[method], with_head)


def batches(config: Any, count: int, seed: int) -> list[Batch]:
    """Return batches of two rows of unequal length, of which an answer is learnt."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = []
        for length in (24, 19):
            ids = random.integers(3, config.vocab_size, [length])
            labels = np.append(ids[1:], IGNORED)
            rows.append(Sample(ids, labels, np.ones(length, dtype=np.int32), np.arange(length) < 6))
        made.append(collate(rows, config, 0))
    return made


def quantize(case: Case, ranks: Ranks, *, evaluation: int = 3) -> Quantized:
    """Quantize the model of a case."""
    return quantize_by_blocks(
        case.family, case.config, case.tensors, case.method, calibration=batches(case.config, BATCHES, 0),
        evaluation=batches(case.config, evaluation, 7), with_head=case.with_head, ranks=ranks,
    )  # fmt: skip


def write(case: Case, model: CausalLM, ranks: Ranks, directory: Path) -> None:
    """Write what the ranks have made, as the task does: rank 0 asks the others for what they keep."""
    if not ranks.is_main:
        return lend(model, ranks)
    complete(model, case.tensors)
    stored = dict.fromkeys(case.tensors.shapes, "float32")
    with lent_layers(model, ranks) as layers:
        parts = ModelParts(
            family=case.family, config=case.config, tensors=QuantizedTensors(model, stored, layers), tokenizer=None,
            chat_template=None, source="a test",
            packing=ModelPacking(model, quantization_config(case.method, model), layers),
        )  # fmt: skip
        write_model_directory(parts, directory, dtype="keep", max_shard_gb=5.0)
