from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED
from llm_run.core.parallel.data_parallel import Replicated
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.objective import NextToken
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.schedule import Schedule
from llm_run.core.trainer.step import MicroBatch, StepResult, TrainStep

OPTIONS = TrainingOptions(learning_rate=3e-3, weight_decay=0.1, warmup_steps=5, lr_scheduler_type="cosine")


def build(family: Any, config: Any, options: TrainingOptions = OPTIONS) -> TrainStep:
    seed_all(7)
    model = family.build_model(config)
    model.train()
    holding = Replicated(model, Mesh())
    agreement = Agreement(Mesh(), holding.parts, {})
    return TrainStep(model, AdamW(holding, options), Precision(options), agreement, NextToken(), seed=7)


def cut(source: Any, config: Any, first: int, count: int, size: int) -> list[MicroBatch]:
    """Samples first ... first + count, in micro-batches of ``size``."""
    return [
        MicroBatch(collate([source.sample(position) for position in range(start, start + size)], config, 0), start)
        for start in range(first, first + count, size)
    ]


def weights(step: TrainStep) -> dict[str, np.ndarray]:
    return {name: parameter.numpy().copy() for name, parameter in step.model.named_parameters()}


def to_torch(step: TrainStep) -> transformers.LlamaForCausalLM:
    """The same network in transformers, with the same weights (ours are [in, out])."""
    config = step.model.config
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{k: v for k, v in config.to_fields().items() if k not in ("architectures", "dtype")})
    ).train()
    ours = weights(step)
    names = {
        "embed_tokens.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
        "lm_head.weight": "lm_head.weight",
    }  # fmt: skip
    parts = {
        "attention.q_proj": "self_attn.q_proj", "attention.k_proj": "self_attn.k_proj",
        "attention.v_proj": "self_attn.v_proj", "attention.o_proj": "self_attn.o_proj",
        "feed_forward.gate_proj": "mlp.gate_proj", "feed_forward.up_proj": "mlp.up_proj",
        "feed_forward.down_proj": "mlp.down_proj", "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    for layer in range(config.num_layers):
        names |= {f"blocks.{layer}.{a}.weight": f"model.layers.{layer}.{b}.weight" for a, b in parts.items()}
    assert names.keys() == ours.keys()
    state = {
        names[name]: torch.tensor(array.T.copy() if "proj" in name or name == "lm_head.weight" else array)
        for name, array in ours.items()
    }
    theirs.load_state_dict(state)
    return theirs


def torch_losses(theirs: Any, batches: Sequence[Any], schedule: Schedule) -> list[float]:
    """A plain loop: shift is done already, padding by attention mask, decay on matrices only, clip at 1."""
    matrices = [parameter for parameter in theirs.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in theirs.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": OPTIONS.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(OPTIONS.adam_beta1, OPTIONS.adam_beta2), eps=OPTIONS.adam_epsilon,
    )  # fmt: skip
    losses = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        logits = theirs(
            input_ids=torch.tensor(batch.ids_BS), attention_mask=torch.tensor(batch.segments_BS > 0).long()
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(batch.labels_BS).flatten(), ignore_index=IGNORED
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), OPTIONS.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("prompt", [0, 5], ids=["pretrain", "sft"])
def test_thirty_losses_are_those_of_a_plain_pytorch_loop(
    family: Any, model_config: Any, rows: Any, prompt: int
) -> None:
    source = rows(length=24, ragged=prompt > 0, prompt=prompt)
    ours = build(family, model_config)
    theirs = to_torch(ours)
    schedule = Schedule.from_options(OPTIONS, 30)
    cuts = [cut(source, model_config, 4 * step, 4, 4) for step in range(30)]
    our_losses = [ours.run(cuts[step], schedule.rate(step)).loss for step in range(30)]
    their_losses = torch_losses(theirs, [micro[0].batch for micro in cuts], schedule)
    assert their_losses[0] - their_losses[-1] > 0.5
    assert np.abs(np.array(our_losses) - their_losses).max() < 1e-4


def test_how_a_global_batch_is_cut_changes_nothing(family: Any, model_config: Any, rows: Any) -> None:
    """Rows of different lengths: a mean of means would differ."""
    source = rows(vocab_size=model_config.vocab_size, ragged=True, prompt=3)
    results: dict[int, list[StepResult]] = {}
    final = {}
    for size in (8, 2, 1):
        step = build(family, model_config)
        results[size] = [step.run(cut(source, model_config, 8 * k, 8, size), 1e-3) for k in range(5)]
        final[size] = weights(step)
    for size in (2, 1):
        for whole, pieces in zip(results[8], results[size], strict=True):
            assert pieces.num_supervised == whole.num_supervised
            assert pieces.loss == pytest.approx(whole.loss, rel=1e-5)
            assert pieces.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
        for name, array in final[8].items():
            np.testing.assert_allclose(final[size][name], array, atol=2e-5, err_msg=name)


def test_gradients_are_clipped_by_their_global_norm(family: Any, model_config: Any, rows: Any) -> None:
    """Adam's first update does not depend on the scale of gradients, so the moments are looked at."""
    source = rows(vocab_size=model_config.vocab_size)
    batch = cut(source, model_config, 0, 4, 4)
    free = build(family, model_config, TrainingOptions(max_grad_norm=0.0))
    clipped = build(family, model_config, TrainingOptions(max_grad_norm=0.25))
    norm = free.run(batch, 1e-3).grad_norm
    assert norm > 0.5
    assert clipped.run(batch, 1e-3).grad_norm == pytest.approx(norm, rel=1e-5)
    for name, moment in free.optimizer.state().items():
        power = 1 if name.startswith("exp_avg.") else 2
        expected = moment.numpy() * (0.25 / norm) ** power
        np.testing.assert_allclose(clipped.optimizer.state()[name].numpy(), expected, rtol=1e-3, atol=1e-12)


def poison(step: TrainStep, value: float) -> Callable[[], None]:
    """Put ``value`` into one weight; returns what puts the old one back."""
    weight = step.model.blocks[1].feed_forward.up_proj.weight
    before = weight.numpy().copy()
    changed = before.copy()
    changed[0, 0] = value
    weight.set_value(changed)
    return lambda: weight.set_value(before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(family: Any, model_config: Any, rows: Any, value: float) -> None:
    source = rows(vocab_size=model_config.vocab_size)
    step, clean = build(family, model_config), build(family, model_config)
    for runner in (step, clean):
        runner.run(cut(source, model_config, 0, 4, 2), 1e-3)
    heal = poison(step, value)
    bad = step.run(cut(source, model_config, 4, 4, 2), 1e-3)
    heal()
    layer = "blocks.1.feed_forward.up_proj"
    assert bad.fault == f"the loss is nan; the first output that is not finite is that of {layer}"
    assert step.optimizer.updates == 1
    for name, moment in step.optimizer.state().items():
        np.testing.assert_array_equal(moment.numpy(), clean.optimizer.state()[name].numpy())
    after = [runner.run(cut(source, model_config, 8, 4, 2), 1e-3) for runner in (step, clean)]
    assert after[0] == after[1]
    for name, array in weights(step).items():
        np.testing.assert_array_equal(array, weights(clean)[name], err_msg=name)


def test_a_gradient_that_is_not_finite_is_named(family: Any, model_config: Any, rows: Any) -> None:
    step = build(family, model_config)
    weight = step.model.blocks[2].attention.o_proj.weight
    weight.register_hook(lambda gradient: gradient * math.inf)
    result = step.run(cut(rows(vocab_size=model_config.vocab_size), model_config, 0, 2, 2), 1e-3)
    assert result.fault == "gradients are not finite: blocks.2.attention.o_proj.weight"


def test_a_batch_without_a_supervised_token_is_a_fault(family: Any, model_config: Any, rows: Any) -> None:
    source = rows(vocab_size=model_config.vocab_size, prompt=16)
    step = build(family, model_config)
    before = weights(step)
    assert step.run(cut(source, model_config, 0, 2, 2), 1e-3).fault == "no token is supervised"
    for name, array in weights(step).items():
        np.testing.assert_array_equal(array, before[name])


def test_the_loss_scale_does_not_show_in_loss_norm_or_update(family: Any, model_config: Any, rows: Any) -> None:
    source = rows(vocab_size=model_config.vocab_size)
    plain, scaled = build(family, model_config), build(family, model_config)
    scaled.precision.scale.value = 1024.0
    batch = cut(source, model_config, 0, 4, 2)
    assert plain.run(batch, 1e-3) == scaled.run(batch, 1e-3)
    for name, array in weights(plain).items():
        np.testing.assert_array_equal(array, weights(scaled)[name])
