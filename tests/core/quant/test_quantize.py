"""Block by block: what is in memory, what each method is shown, and what the comparison says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import ModelTensors
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.quant.block import BlockInWork
from llm_run.core.quant.gptq import GptqSettings
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.groups import feeding_channels, groups_of_block, tied_maximum
from llm_run.core.quant.methods import Gptq, LayerRecord, RoundToNearest
from llm_run.core.quant.observe import Moments
from llm_run.core.quant.quantize import quantize_by_blocks
from llm_run.core.quant.walk import Walk
from llm_run.core.registry.family import Family
from llm_run.core.trainer.inputs import to_inputs


def batch(config: Any, seed: int, lengths: tuple[int, ...] = (20, 13)) -> Batch:
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        ids = random.integers(3, config.vocab_size, [length])
        rows.append(
            Sample(ids, np.append(ids[1:], IGNORED), np.ones(length, dtype=np.int32), np.zeros(length, dtype=bool))
        )
    return collate(rows, config, 0)


def test_one_block_at_a_time_is_there_in_floats(llama: Family, model: CausalLM, monkeypatch: Any) -> None:
    from llm_run.core.quant import quantize

    made: list[CausalLM] = []
    build = quantize.build_empty
    monkeypatch.setattr(quantize, "build_empty", lambda *given: made.append(build(*given)) or made[-1])
    seen: list[list[str]] = []

    def look(index: int, records: list[LayerRecord]) -> None:
        kinds = []
        for block in made[0].blocks:
            linears = [layer for layer in block.sublayers() if isinstance(layer, nn.Linear)]
            filled = [layer.weight._is_initialized() for layer in linears]
            kinds.append("integers" if not linears else "floats" if all(filled) else "empty")
        seen.append(kinds)

    quantize_by_blocks(
        llama, model.config, ModelTensors(model), RoundToNearest(GridSpec(8)),
        calibration=[], evaluation=[batch(model.config, 0)], on_block=look,
    )  # fmt: skip
    count = model.config.num_layers
    assert seen == [["integers"] * (index + 1) + ["empty"] * (count - index - 1) for index in range(count)]


def test_the_comparison_is_that_of_the_two_models(llama: Family, model: CausalLM) -> None:
    held = batch(model.config, 1)
    quantized = quantize_by_blocks(
        llama, model.config, ModelTensors(model), RoundToNearest(GridSpec(4)), calibration=[], evaluation=[held]
    )
    inputs = to_inputs(held, model.config)
    with paddle.no_grad():
        both = [each.head(each(inputs.ids_BS, inputs.positions, inputs.mask)) for each in (model, quantized.model)]
    supervised = held.labels_BS != IGNORED
    rows = supervised.nonzero()

    def perplexity(logits: paddle.Tensor) -> float:
        logits_TV = logits.numpy().astype(np.float64)[rows]
        chosen_T = logits_TV[np.arange(len(logits_TV)), held.labels_BS[rows]]
        return math.exp(float(np.mean(np.log(np.exp(logits_TV).sum(axis=1)) - chosen_T)))

    found = quantized.comparison
    assert found.num_tokens == supervised.sum()
    assert found.ppl_before == pytest.approx(perplexity(both[0]), rel=1e-5)
    assert found.ppl_after == pytest.approx(perplexity(both[1]), rel=1e-5)
    difference = np.abs((both[0] - both[1]).numpy())[supervised].max()
    assert found.max_logit_difference == pytest.approx(float(difference), rel=1e-3)


def test_padding_is_not_observed_and_every_real_token_is(llama: Family, model: CausalLM) -> None:
    """Two rows of unequal length show what they show one by one."""
    config = model.config
    groups = groups_of_block(llama.quantizable_layers(config) or (), 0)

    def observed(batches: list[Batch]) -> list[Moments]:
        work = BlockInWork(model, model.blocks[0], groups)
        return work.observe(Walk(model, batches), groups, Moments)

    padded = batch(config, 2, (20, 9))
    ids = padded.ids_BS
    singles = []
    for row, length in enumerate((20, 9)):
        segments = np.ones(length, dtype=np.int32)
        sample = Sample(ids[row, :length], padded.labels_BS[row, :length], segments, np.zeros(length, dtype=bool))
        singles.append(collate([sample], config, 0))
    for together, apart in zip(observed([padded]), observed(singles), strict=True):
        assert together.num_tokens == apart.num_tokens == 29
        assert np.allclose(together.hessian_II, apart.hessian_II, atol=1e-5)


def test_gptq_is_shown_what_quantized_layers_put_out(llama: Family, model: CausalLM) -> None:
    """The second group of a block sees the first one rounded: its errors are then its own to make good."""
    held = [batch(model.config, 3)]
    options: dict[str, Any] = {"calibration": held, "evaluation": held}
    tensors = ModelTensors(model)
    gptq = Gptq(GridSpec(4), GptqSettings())
    records = quantize_by_blocks(llama, model.config, tensors, gptq, **options).layers
    nearest = quantize_by_blocks(llama, model.config, tensors, RoundToNearest(GridSpec(4)), **options).layers
    assert [record.name for record in records] == [record.name for record in nearest]
    assert all(record.output_error is not None and record.output_error < record.weight_error for record in records)
    assert all(record.output_error is None for record in nearest)


def test_query_heads_that_share_values_are_scaled_together() -> None:
    config: Any = type("Config", (), {"head_dim": 2})()
    channels = feeding_channels(config, in_size=8, feeder_size=4)
    # Heads 0 and 1 read the values of head 0, heads 2 and 3 those of head 1.
    assert channels.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert tied_maximum(np.arange(8.0), channels).tolist() == [2, 3, 2, 3, 6, 7, 6, 7]
    assert feeding_channels(config, 4, 4).tolist() == [0, 1, 2, 3]
